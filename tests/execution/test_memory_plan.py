"""Memory: plans against the peaks of real processes, and a budget that cuts no more than it has to."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedmem.errors import ScenarioError
from fedmem.execution import memory_budget, memory_plan
from fedmem.execution.memory_budget import reduce_to_budget, room_of, unlimited_plan
from fedmem.execution.memory_plan import MemoryLimits, MemoryNeeds, forward_bytes, needs_of, phases
from fedmem.execution.plan import plan
from fedmem.federation import build as federations
from fedmem.federation.roster import Cohorts
from fedmem.scenario.loading import load_scenario, parse_scenario
from strategies.scaffold import Scaffold
from tests.narrowing import instance, present
from tests.tiny import tiny

SCENARIOS = Path(__file__).parents[2] / "scenarios"

NEEDS = MemoryNeeds(
    runs=32,
    data=10**8,
    source=10**8,
    drafts=0,
    model=4 * 10**6,
    row=4000,
    saved=10**5,
    wide=10**5,
    classes=10,
    cohort=20,
    examples=500,
    batch=10,
    evidence=10**6,
    estimates=10**7,
    stackable=True,
    watched=True,
    server="messages",
)

ROOM = MemoryLimits(stack_bytes=64 << 20, forward_rows=1 << 16, shard=16, workers=2)


def training(needs: MemoryNeeds, room: MemoryLimits) -> int:
    return sum(phases(needs, room)["training"].values())


# --- a budget ---------------------------------------------------------------------------------------------------------


def test_what_fits_is_left_as_it_is() -> None:
    assert reduce_to_budget(NEEDS, ROOM, training(NEEDS, ROOM)) == ROOM


@pytest.mark.parametrize("part", [0.9, 0.6, 0.3, 0.2])
def test_a_budget_is_kept_and_nothing_grows(part: float) -> None:
    budget = part * training(NEEDS, ROOM)
    room = reduce_to_budget(NEEDS, ROOM, budget)
    assert training(NEEDS, room) <= budget
    for name, value in vars(room).items():
        assert 1 <= value <= getattr(ROOM, name)
    assert room == reduce_to_budget(NEEDS, ROOM, budget), "the same needs and budget give the same room"


def test_smaller_budgets_never_leave_more_room() -> None:
    least = training(NEEDS, MemoryLimits(stack_bytes=1, forward_rows=memory_plan.MIN_ROWS, shard=1, workers=1))
    rooms = [reduce_to_budget(NEEDS, ROOM, least * factor) for factor in (1.0, 1.1, 1.5, 2, 3, 5, 9)]
    for name in vars(ROOM):
        sizes = [getattr(room, name) for room in rooms]
        assert sizes == sorted(sizes)
    assert rooms[0].shard == rooms[0].workers == rooms[0].chunk(NEEDS) == 1


def test_what_takes_most_is_cut_first_and_processes_are_given_up_last() -> None:
    looked = replace(NEEDS, wide=10**6, model=1000)
    room = reduce_to_budget(looked, ROOM, 0.5 * training(looked, ROOM))
    assert (room.stack_bytes, room.shard, room.workers) == (ROOM.stack_bytes, ROOM.shard, ROOM.workers)
    assert room.forward_rows < ROOM.rows(looked)
    wide = replace(NEEDS, cohort=1000)
    room = reduce_to_budget(wide, ROOM, 0.6 * training(wide, ROOM))
    assert (room.shard, room.forward_rows, room.workers) == (8, ROOM.forward_rows, ROOM.workers)
    one = replace(NEEDS, cohort=1, evidence=0, wide=0, batch=0, classes=0, runs=1)
    single = MemoryLimits(stack_bytes=one.model, forward_rows=memory_plan.MIN_ROWS, shard=1, workers=2)
    assert reduce_to_budget(one, single, training(one, single) - 1) == replace(single, workers=1)


def test_too_small_a_budget_is_an_error_with_numbers_and_a_remedy() -> None:
    least = MemoryLimits(stack_bytes=1, forward_rows=memory_plan.MIN_ROWS, shard=1, workers=1)
    with pytest.raises(ScenarioError) as caught:
        reduce_to_budget(NEEDS, ROOM, training(NEEDS, least) - 1)
    (problem,) = caught.value.problems
    assert problem.path == "speed.memory"
    wanted = float(present(re.search(r"raise it to at least ([\d.]+)", problem.message))[1])
    reduce_to_budget(NEEDS, ROOM, wanted * 1e9)  # what is asked for is enough
    with pytest.raises(ScenarioError):
        reduce_to_budget(NEEDS, ROOM, (wanted - 0.2) * 1e9)
    assert "models of one round" in problem.message
    assert "a smaller cohort" in problem.message
    rows = replace(NEEDS, data=10**10)
    with pytest.raises(ScenarioError, match=r"fewer rows or references"):
        reduce_to_budget(rows, ROOM, 10**9)


def test_the_room_of_a_scenario_follows_its_budget_and_points_into_its_file() -> None:
    scenario = tiny(model={"kind": "mlp", "hidden": [2000, 1000]}, runs=8, speed={"shard": 8, "workers": 3})
    federation = federations.build(scenario)
    free = room_of(scenario, federation)
    assert (free.shard, free.workers) == (8, 1), "one shard occupies one process"
    needs = needs_of(scenario, federation, 3)
    budget = (training(needs, free) - 10**8) / 1e9
    tight = tiny(model={"kind": "mlp", "hidden": [2000, 1000]}, runs=8, speed={"shard": 8, "memory": budget})
    assert room_of(tight, federation).shard < 8
    text = "{rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: logistic},\n speed: {memory: 0.01}}"
    small = parse_scenario(text)
    with pytest.raises(ScenarioError) as caught:
        room_of(small, federations.build(small))
    assert caught.value.problems[0].line == 2


# --- the parts of a plan ----------------------------------------------------------------------------------------------


def test_models_of_one_round_are_those_of_the_shards_that_are_trained_at_once() -> None:
    def models(**changes: int) -> int:
        return phases(NEEDS, replace(ROOM, **changes))["training"]["models of one round"]

    assert models(shard=8) * 2 == models()
    assert models(workers=1) * 2 == models()
    assert phases(replace(NEEDS, runs=64), ROOM)["training"]["models of one round"] == models()


def test_evidence_is_held_by_the_shard_while_training_and_whole_at_the_end() -> None:
    found = phases(NEEDS, replace(ROOM, workers=1))
    assert found["training"]["evidence"] == 16 * NEEDS.evidence
    assert found["estimating"]["evidence"] == 32 * NEEDS.evidence
    assert "workers" not in found["training"]
    assert phases(NEEDS, ROOM)["training"]["workers"] == 2 * memory_plan.WORKER


def test_clients_that_do_not_stack_train_alone() -> None:
    alone = replace(NEEDS, stackable=False)
    assert (ROOM.chunk(NEEDS), ROOM.chunk(alone)) == (16, 1)
    assert ROOM.chunk(replace(NEEDS, model=10**9)) == 1
    assert ROOM.chunk(replace(NEEDS, model=1, cohort=3)) == 3 * 16


def test_workers_are_at_most_shards_and_cores() -> None:
    assert unlimited_plan(NEEDS, 16, 5).workers == 2
    assert unlimited_plan(NEEDS, 100, 5) == replace(unlimited_plan(NEEDS, 32, 1), shard=32)
    assert unlimited_plan(NEEDS, 1, 5).workers == 5


def test_a_large_bank_is_divided_so_that_every_worker_has_some() -> None:
    """One shard could hold all runs; below a few thousand trainings it does."""
    for rounds, shard in ((10, 16), (1000, 8)):
        scenario = tiny(runs=16, rounds=rounds, observe={}, speed={"workers": 2})
        assert memory_budget.fit_to_budget(scenario, replace(NEEDS, runs=16, cohort=3)).shard == shard


def test_what_a_backward_pass_needs_is_counted_once_and_without_parameters() -> None:
    linear = nn.Linear(10, 5, bias=False)
    rows = torch.zeros(3, 10).numpy()
    assert forward_bytes(linear, rows) == (3 * 10 * 4, 3 * 15 * 4)
    assert forward_bytes(nn.Sequential(linear, nn.ReLU(), nn.Linear(5, 20)), rows) == (3 * (10 + 5) * 4, 3 * 25 * 4)
    assert not linear._forward_hooks, "the model is left as it was"


def test_counts_come_from_the_scenario() -> None:
    scenario = tiny(observe={"every": 1})
    federation = federations.build(scenario)
    needs = needs_of(scenario, federation, Cohorts.draw(scenario, federation).largest_cohort)
    assert needs.cohort == 3
    assert needs.model == sum(value.numel() * 4 for value in federation.initial.values())
    # four observed rounds of three clients and an aggregate, and the start; 30 + 200 + 20 examples, four labels
    labels = len(set(federation.audit.examples.targets[federation.audit.kind == "random_pattern"].tolist()))
    assert needs.evidence == (4 * 4 + 1) * (17 * 250 + (4 * 256 + 8) * labels)
    more = needs_of(tiny(references=51), federations.build(tiny()), 3)
    assert more.data == needs.data + 64 * 4
    assert needs_of(tiny(initial_weights="per_run"), federation, 3).data == needs.data + 4 * needs.model


def test_the_plan_names_the_phase_that_takes_most() -> None:
    assert plan(tiny(dataset={"kind": "synthetic", "rows": 400_000, "test": 10})).moment in ("laying out", "training")
    assert plan(tiny(references=10**6)).moment == "laying out"
    assert plan(tiny(bootstrap=10**6, estimators=[{"kind": "memorisation"}])).moment == "estimating"


def held(**changes: Any) -> Any:
    scenario = tiny(**{"injections": [], **changes})
    federation = federations.build(scenario)
    return needs_of(scenario, federation, 3)


def test_what_strategies_keep_of_all_clients_is_counted() -> None:
    """(N + 1) P of scaffold and feddyn, N P of foolsgold, in float32; of a tree one float64 node for each level."""
    model = held().model
    assert held().tables == held().remembered == held().example_gradients == 0
    for kind, models in (("scaffold", 5 + 1), ("feddyn", 5 + 1), ("foolsgold", 5)):
        assert held(strategy={"kind": kind}).tables == pytest.approx(models * model, rel=0.05)
    everyone = {"sampler": {"kind": "everyone"}, "rounds": 12}
    tree = held(strategy={"kind": "dp_ftrl", "expected_cohort_size": 5.0}, **everyone)
    assert tree.tables == pytest.approx(4 * 2 * model, rel=0.05)
    # what strategies really end with
    strategy = instance(tiny(strategy={"kind": "scaffold"}).strategy, Scaffold)
    before = {name: value[None] for name, value in federations.build(tiny()).initial.items()}
    state = strategy.state(before, 5)
    assert held(strategy={"kind": "scaffold"}).tables == sum(v.numel() * v.element_size() for v in state.values())


def test_what_clients_remember_is_counted_of_those_who_had_a_turn() -> None:
    model = held().model
    own = sum(v.numel() * 4 for name, v in federations.build(tiny()).initial.items() if name.startswith("output"))
    # layers of one's own wait at the client and are remembered by whoever reads the aggregate
    assert held(client={"kind": "fedper"}).remembered == 5 * 2 * own
    assert held(client={"kind": "fedper"}, rounds=1, observe={}).remembered == 3 * 2 * own
    assert held(client={"kind": "top_k"}).remembered == 5 * model


def test_gradients_of_single_examples_are_counted_where_they_are_held() -> None:
    private = {"client": {"kind": "dp_sgd", "batch_size": 25}}
    one_by_one = {"executor": "one_by_one"}
    model = held().model
    assert held(**private).example_gradients == 0, "a stack of linear layers holds none"
    assert held(**private, speed=one_by_one).example_gradients == 45 * model
    large = {**private, "model": {"kind": "mlp", "hidden": [400]}}
    assert held(**large, speed=one_by_one).example_gradients == 0, "nor does ghost clipping"
    needs = held(**private, speed=one_by_one)
    room = unlimited_plan(needs, 4, 1)
    assert training(needs, room) - training(replace(needs, example_gradients=0), room) == memory_plan.EACH * 45 * model


def test_what_is_kept_is_cut_by_fewer_runs_at_once() -> None:
    needs = replace(NEEDS, tables=20 * NEEDS.model * 50, runs=16)
    room = replace(ROOM, shard=16)
    grown = training(needs, room) - training(replace(needs, tables=0), room)
    assert grown == 16 * memory_plan.TABLES * needs.tables * room.workers
    assert reduce_to_budget(needs, room, 0.6 * training(needs, room)).shard < 16
    least = MemoryLimits(stack_bytes=1, forward_rows=memory_plan.MIN_ROWS, shard=1, workers=1)
    with pytest.raises(ScenarioError, match="or another strategy or client"):
        reduce_to_budget(needs, ROOM, training(needs, least) - 1)


# --- plans against real peaks -----------------------------------------------------------------------------------------

MEASURE = """
import json, sys, tempfile
from fedmem.scenario.scenario import load_scenario
from fedmem.execution.run import run
scenario = load_scenario(sys.argv[1], json.loads(sys.argv[2]))
with tempfile.TemporaryDirectory() as folder:
    run(scenario, out=folder)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""

CUT = """
import json, sys
from fedmem import evidence, federation, memory, training
from fedmem.execution.bank import simulate
from fedmem.scenario.scenario import load_scenario
scenario = load_scenario(sys.argv[1], json.loads(sys.argv[2]))
built = federation.build(scenario)
room = memory.room_of(scenario, built)
training.STACK_BYTES, training.FORWARD_ROWS = room.stack_bytes, room.forward_rows
evidence.MODELS_AT_ONCE = 1 if room.forward_rows < 5000 else 32
simulate(scenario, built, runs=range(room.shard))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""

AGREEMENT = 1.3
"""Factor between a planned and a measured peak."""

BASE = """
name: peak
rounds: 2
population: 100
references: 100
observe: {every: 1}
speed: {shard: 100000, workers: 1}
"""

CASES = {
    "many references": """
clients: 10
runs: 4
dataset: {kind: synthetic, rows: 2000, test: 300, shape: [1, 28, 28], classes: 10}
model: {kind: mlp, hidden: [64]}
injections: [{kind: random_pattern, per_client: 2}, {kind: blended_patch, per_client: 2}]
sampler: {kind: uniform, size: 5}
estimators: [{kind: exposure}]
references: 60000
""",
    "a bank of convolutions": """
clients: 20
runs: 8
dataset: {kind: synthetic, rows: 2500, test: 600, shape: [1, 28, 28], classes: 10}
model: {kind: small_cnn, channels: [32, 64]}
injections: [{kind: random_pattern, per_client: 2}, {kind: typical, per_client: 2}]
sampler: {kind: uniform, size: 10}
estimators: [{kind: memorisation}]
""",
    "a wide cohort": """
clients: 300
runs: 8
dataset: {kind: synthetic, rows: 12000, test: 300, shape: [64], classes: 10}
model: {kind: mlp, hidden: [512, 256]}
injections: [{kind: typical, per_client: 1, clients: {count: 50}}]
sampler: {kind: uniform, size: 150}
estimators: [{kind: memorisation}]
""",
    "the same by the rule": """
clients: 300
runs: 8
dataset: {kind: synthetic, rows: 12000, test: 300, shape: [64], classes: 10}
model: {kind: mlp, hidden: [512, 256]}
sampler: {kind: uniform, size: 150}
observe: {levels: [global]}
speed: {shard: 100000, workers: 1, server: rule}
""",
    "models that are looked at": """
clients: 3
runs: 8
dataset: {kind: synthetic, rows: 300, test: 5000, shape: [64], classes: 10}
model: {kind: mlp, hidden: [256, 256, 256, 256, 256, 256]}
client: {kind: sgd, steps: 1}
""",
    "control variates of all clients": """
clients: 300
runs: 4
dataset: {kind: synthetic, rows: 12000, test: 300, shape: [64], classes: 10}
model: {kind: mlp, hidden: [512, 256]}
sampler: {kind: uniform, size: 20}
strategy: {kind: scaffold}
observe: {levels: [global]}
""",
    "private clients": """
clients: 10
dataset: {kind: synthetic, rows: 12000, test: 300, shape: [1, 28, 28], classes: 10}
model: {kind: small_cnn, channels: [16, 32]}
sampler: {kind: uniform, size: 5}
client: {kind: dp_sgd, batch_size: 256, steps: 2}
observe: {levels: [global]}
speed: {shard: 100000, workers: 1, executor: one_by_one}
""",
    "many rows": """
clients: 1000
dataset: {kind: synthetic, rows: 1500000, test: 1000, shape: [64], classes: 10}
model: {kind: mlp, hidden: [64]}
sampler: {kind: uniform, size: 2}
client: {kind: sgd, steps: 5}
""",
    "much evidence": """
clients: 20
runs: 40
rounds: 10
dataset: {kind: synthetic, rows: 2000, test: 2000, shape: [16], classes: 10}
model: {kind: logistic}
injections: [{kind: typical, per_client: 4}]
sampler: {kind: uniform, size: 10}
client: {kind: sgd, steps: 1}
estimators: [{kind: memorisation}]
""",
}


def written(folder: Path, case: str) -> Path:
    """A scenario file; later keys replace those of all cases."""
    keys: dict[str, str] = {}
    for line in (BASE + CASES[case]).strip().splitlines():
        keys[line.partition(":")[0]] = line
    path = folder / "peak.yaml"
    path.write_text("\n".join(keys.values()))
    return path


def peak(script: str, path: Path, overrides: list[str]) -> int:
    """Bytes, of a process of its own. Not from `getrusage`, whose peak a child inherits from whoever started it."""
    command = [sys.executable, "-c", script, str(path), json.dumps(overrides)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return int(done.stdout.split()[-1]) * 1024


def told(found: Any) -> str:
    return str({name: f"{size / 1e6:.0f} MB" for name, size in found.items()})


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("case", [*CASES, "quickstart"])
def test_planned_peaks_are_those_of_real_processes(case: str, tmp_path: Path) -> None:
    if case == "quickstart":
        path, overrides = SCENARIOS / "quickstart.yaml", ["speed.shard=32", "speed.workers=1"]
    else:
        path, overrides = written(tmp_path, case), []
    planned = plan(load_scenario(path, overrides))
    purposes = planned.memory[planned.moment]
    measured = peak(MEASURE, path, overrides)
    ratio = sum(purposes.values()) / measured
    print(f"{case}: planned / measured = {ratio:.2f}")
    assert 1 / AGREEMENT < ratio < AGREEMENT, f"{planned.moment}: {told(purposes)}, measured {measured / 1e6:.0f} MB"


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(("case", "budget"), [("a wide cohort", 1.1), ("models that are looked at", 0.6)])
def test_what_is_cut_to_a_budget_stays_within_it(case: str, budget: float, tmp_path: Path) -> None:
    path = written(tmp_path, case)
    whole, measured = (peak(CUT, path, overrides) for overrides in ([], [f"speed.memory={budget}"]))
    print(f"{case}: {whole / 1e9:.2f} GB cut to {measured / 1e9:.2f} GB for {budget} GB")
    assert measured < 1.1e9 * budget < whole
