"""Memory: plans against the peaks of real processes, and a budget that cuts no more than it has to."""

import gc
import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.execution import memory_plan
from fedmem.execution.memory_budget import unlimited_plan
from fedmem.execution.memory_plan import forward_bytes, needs_of, phases
from fedmem.execution.plan import plan
from fedmem.federation import build as federations
from fedmem.federation.roster import Cohorts
from fedmem.scenario.loading import load_scenario
from tests.execution.memory_plan_helpers import NEEDS, ROOM, held, training
from tests.tiny import tiny

SCENARIOS = Path(__file__).parents[2] / "scenarios"


# --- a budget ---------------------------------------------------------------------------------------------------------


# --- the parts of a plan ----------------------------------------------------------------------------------------------


def test_models_of_a_round_count_the_shards_trained_at_once() -> None:
    def models(**changes: int) -> int:
        return phases(NEEDS, replace(ROOM, **changes))["training"]["models of one round"]

    assert models(shard=8) * 2 == models()
    assert models(workers=1) * 2 == models()
    assert phases(replace(NEEDS, runs=64), ROOM)["training"]["models of one round"] == models()


def test_evidence_is_per_shard_in_training_and_whole_at_the_end() -> None:
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


def test_backward_pass_counts_each_input_once_without_parameters() -> None:
    linear = nn.Linear(10, 5, bias=False)
    rows = torch.zeros(3, 10).numpy()
    assert forward_bytes(linear, rows) == (3 * 10 * 4, 3 * 15 * 4)
    assert forward_bytes(nn.Sequential(linear, nn.ReLU(), nn.Linear(5, 20)), rows) == (3 * (10 + 5) * 4, 3 * 25 * 4)
    assert not linear._forward_hooks, "the model is left as it was"


def test_a_counted_pass_is_freed() -> None:
    """A pass that autograd remembers would be held as long as the process lives, with its network."""
    alive: list[weakref.ref[torch.Tensor]] = []
    network = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2))
    network[1].register_forward_hook(lambda *given: alive.append(weakref.ref(given[2])))
    forward_bytes(network, np.zeros((1, 4), np.float32))
    gc.collect()
    assert [each() for each in alive] == [None]


def test_counts_come_from_the_scenario() -> None:
    scenario = tiny(observe={"every": 1})
    federation = federations.build(scenario)
    needs = needs_of(scenario, federation, Cohorts.draw(scenario, federation).largest_cohort)
    assert needs.cohort == 3
    assert needs.model == sum(value.numel() * 4 for value in federation.initial.values())
    # four observed rounds of three clients and an aggregate, and the start; 30 + 100 + 20 examples, four labels
    labels = len(set(federation.audit.examples.targets[federation.audit.kind == "random_pattern"].tolist()))
    assert needs.evidence == (4 * 4 + 1) * (17 * 150 + (4 * 256 + 8) * labels)
    more = needs_of(tiny(references=51), federations.build(tiny()), 3)
    assert more.data == needs.data + 64 * 4
    assert needs_of(tiny(initial_weights="per_run"), federation, 3).data == needs.data + 4 * needs.model


def test_plan_names_the_phase_with_the_largest_memory() -> None:
    assert plan(tiny(dataset={"kind": "synthetic", "rows": 400_000, "test": 10})).moment in ("laying out", "training")
    assert plan(tiny(references=10**6)).moment == "laying out"
    assert plan(tiny(bootstrap=10**6, estimators=[{"kind": "memorisation"}])).moment == "estimating"


def test_per_example_gradients_are_counted_where_they_are_held() -> None:
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


# --- plans against real peaks -----------------------------------------------------------------------------------------

MEASURE = """
import json, sys, tempfile
from fedmem.execution.run import run
from fedmem.scenario.loading import load_scenario
scenario = load_scenario(sys.argv[1], json.loads(sys.argv[2]))
with tempfile.TemporaryDirectory() as folder:
    run(scenario, out=folder)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""

CUT = """
import json, sys
from fedmem.execution.bank import simulate
from fedmem.execution.memory_budget import room_of
from fedmem.federation.build import build
from fedmem.scenario.loading import load_scenario
scenario = load_scenario(sys.argv[1], json.loads(sys.argv[2]))
built = build(scenario)
simulate(scenario, built, runs=range(room_of(scenario, built).shard))
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
def test_measured_peak_stays_within_the_memory_budget(case: str, budget: float, tmp_path: Path) -> None:
    path = written(tmp_path, case)
    whole, measured = (peak(CUT, path, overrides) for overrides in ([], [f"speed.memory={budget}"]))
    print(f"{case}: {whole / 1e9:.2f} GB cut to {measured / 1e9:.2f} GB for {budget} GB")
    assert measured < 1.1e9 * budget < whole
