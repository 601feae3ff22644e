"""What is planned against what really happens, counted in real runs; and the formulas of precision against draws."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmem import seeding
from fedmem.estimation.estimates import estimate
from fedmem.execution import memory_plan
from fedmem.execution import plan as planning
from fedmem.execution.bank import simulate
from fedmem.execution.plan import plan
from fedmem.federation import build as federations
from fedmem.federation import roster
from fedmem.results.signal_tables import write_signals
from fedmem.scenario.catalogue import kinds
from fedmem.scenario.loading import load_scenario
from fedmem.training.client_work import Work
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked
from tests.tiny import TINY, sampled, tiny

CANARIES = TINY["injections"][0]

VARIANTS = {
    "as it is": {},
    "own roster": {"roster": "per_run", "initial_weights": "per_run"},
    "clients that vary in number": {"sampler": {"kind": "poisson", "rate": 0.4}},
    "outs simply missing": {"exclusion": "remove", "client": {"kind": "sgd", "epochs": 2, "batch_size": 7}},
    "steps": {"client": {"kind": "sgd", "steps": 3, "batch_size": 16}},
    "clients left out": {"leave_out": {"clients": "all"}},
    "windows": {"injections": [{"kind": "typical", "start": 2, "stop": 3}, CANARIES], "exclusion": "remove"},
    "global only": {"observe": {"levels": ["global"], "every": 1}},
    "local only": {"observe": {"levels": ["local"], "rounds": [1]}},
    "part of the test set": {"observe": {"every": 1, "test": {"levels": ["global"], "rows": 30}}},
    "population at clients": {"observe": {"every": 1, "population": {"levels": ["local"]}}},
    "nothing planted": {"injections": [], "population": 0},
    "several copies": {"injections": [{**CANARIES, "copies": 3, "clients": [0, 2]}]},
    "one run": {"runs": 1},
}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the executors were really asked to train."""
    tasks: list[SimpleNamespace] = []

    def spy(cls: type[OneByOne] | type[Stacked]) -> None:
        original: Any = cls.attempt_all

        def attempt_all(self: object, work: Work) -> Any:
            tasks.extend(
                SimpleNamespace(
                    run=int(work.run[i]),
                    round=work.round,
                    client=int(work.client[i]),
                    batches=work.batches[i, : work.steps[i]],
                )
                for i in range(len(work))
            )
            return original(self, work)

        monkeypatch.setattr(cls, "attempt_all", attempt_all)

    spy(Stacked)
    spy(OneByOne)
    return tasks


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_counts_are_those_of_the_run(trained: list[SimpleNamespace], changes: dict[str, Any]) -> None:
    scenario = tiny(**changes)
    planned = plan(scenario)
    assert not trained, "planning trains nothing"
    done = simulate(scenario, federations.build(scenario))
    assert planned.exact
    assert planned.trainings == len(trained) == len(done.bank.participation)
    assert planned.cohort == pytest.approx(len(trained) / scenario.runs / scenario.rounds)
    assert planned.steps == sum(len(task.batches) for task in trained)
    assert planned.examples == sum((task.batches >= 0).sum() for task in trained)
    assert planned.evidence == sum(block.loss.size for block in done.bank.evidence)
    assert planned.references == sum(len(block.run) * len(block.labels) for block in done.bank.references)
    assert sum(planned.models.values()) == sum(len(e.run) for e in done.bank.evidence if e.set == "audit")
    assert {level: sets["audit"] for level, sets in planned.sets.items()} == dict.fromkeys(
        planned.models, len(done.bank.audit)
    )


@pytest.mark.parametrize("kind", kinds("sampler"))
def test_cohorts_of_every_sampler_are_the_ones_that_are_drawn(trained: list[SimpleNamespace], kind: str) -> None:
    scenario = tiny(**sampled(kind), probes=[], references=1)
    simulate(scenario, federations.build(scenario), watch=False)
    planned = plan(scenario)
    assert planned.exact == (not scenario.has_pilot)
    # Sizes are known whoever will be picked, but where each client decides by its norm.
    assert planned.trainings == len(trained) or kind == "optimal"


@pytest.mark.parametrize(
    "changes", [{}, {"leave_out": {"clients": 3}}, {"roster": "per_run"}, {"observe": {"levels": ["global"]}}]
)
def test_planned_smallest_rate_and_examples_equal_the_estimates(changes: dict[str, Any]) -> None:
    attack = {"kind": "membership", "attack": {"kind": "loss_threshold"}}
    scenario = tiny(runs=8, sampler={"kind": "uniform", "size": 2}, estimators=[attack], **changes)
    planned = {one.kind: one for one in plan(scenario).precision}
    bank = simulate(scenario, federations.build(scenario)).bank
    rows = [
        row.reading
        for row in estimate(bank, scenario.estimators, 20)
        if row.round is None and row.reading.metric == "tpr" and row.level == "global"
    ]
    assert len(rows) == len(planned) == 3
    for reading in rows:
        one = planned[reading.subject]
        assert reading.labels.get("fpr") == pytest.approx(one.fpr, rel=1e-3)
        assert reading.n == one.examples


def test_examples_of_unobserved_owners_do_not_count() -> None:
    scenario = tiny(rounds=1, sampler={"kind": "uniform", "size": 2}, observe={})
    assert {one.examples for one in plan(scenario).precision} == {4}  # two on each of two clients
    assert plan(scenario).sets["global"]["audit"] == 30


def test_standard_errors_are_the_formulas() -> None:
    for one in plan(tiny(runs=16)).precision:
        assert one.of_one == pytest.approx(1 / math.sqrt(16))
        assert one.of_mean == pytest.approx(1 / math.sqrt(16 * one.examples))
    left_out = plan(tiny(runs=16, leave_out={"clients": "all"})).precision[0]
    assert left_out.of_one > 1 / math.sqrt(9), "with half of the runs, there is half as much to go by"
    assert plan(tiny(runs=1)).precision[0].examples == 0


def test_no_spread_of_real_draws_exceeds_the_formulas() -> None:
    """Right or wrong by fair coins, half of them shared by all examples of a run: the hardest case."""
    rng, runs, m, times = np.random.default_rng(0), 8, 6, 4000
    half = np.tile(np.arange(runs) % 2 == 0, (times, m, 1))
    coins = rng.permuted(half, axis=2)
    shared = rng.random((times, 1, runs)) < 0.5
    own = rng.random((times, m, runs)) < 0.5
    right = np.where(rng.random((times, 1, 1)) < 0.5, shared, own)
    memorisation = np.where(coins, right, -1.0 * right).sum(2) * 2 / runs
    of_one, of_mean = 1 / math.sqrt(runs), 1 / math.sqrt(runs * m)
    assert memorisation[:, 0].std() == pytest.approx(of_one, rel=0.05)
    assert memorisation.mean(1).std() == pytest.approx(of_mean, rel=0.05)
    assert memorisation.mean(1).std() < 0.6 * of_one, "coins are independent across examples, whatever runs share"


def test_plan_of_long_training_extrapolates_the_first_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = tiny(rounds=40, sampler={"kind": "poisson", "rate": 0.5}, observe={"every": 10})
    whole = plan(scenario)
    monkeypatch.setattr(roster, "CLIENTS_LOOKED_AT", 1000 * 25)
    some = plan(scenario)
    assert whole.exact
    assert not some.exact
    assert some.trainings == pytest.approx(whole.trainings, rel=0.3)
    assert some.evidence == pytest.approx(whole.evidence, rel=0.3)
    assert not plan(tiny(cohort_by="strategy", strategy={"kind": "flwr.serverapp.strategy:FedAvg"})).exact


def test_many_runs_cost_a_plan_no_more_draws_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def counted(*words: Any, **places: Any) -> np.random.Generator:
        drawn.append(words)
        return seeding.stream(*words, **places)

    for module in (federations, roster):
        monkeypatch.setattr(module, "stream", counted)
    monkeypatch.setattr(memory_plan, "IN_MEMORY", 0)
    found = {}
    for runs in (planning.RUNS_LOOKED_AT, 100_000):
        drawn.clear()
        found[runs] = plan(tiny(runs=runs, roster="per_run")), len(drawn)
    (some, few), (many, more) = found.values()
    assert more == few > planning.RUNS_LOOKED_AT
    assert (some.exact, many.exact) == (True, False)
    times = 100_000 / planning.RUNS_LOOKED_AT
    for name in ("trainings", "steps", "examples", "evidence"):
        assert getattr(many, name) == pytest.approx(times * getattr(some, name), rel=1e-6)
    assert many.cohort == some.cohort
    assert [one.of_one for one in many.precision] == pytest.approx([100_000**-0.5] * 3)
    assert {one.outs for one in many.precision} == {10 * 50_000}
    for name in ("evidence", "estimates"):
        assert many.memory["estimating"][name] == pytest.approx(times * some.memory["estimating"][name], rel=0.01)


def test_parameters_that_are_saved_count() -> None:
    disk = plan(tiny(save={"params": True}, model={"kind": "mlp", "hidden": [2000, 2000]})).disk
    assert next(iter(disk)) == "params"


def test_planning_changes_no_global_generator() -> None:
    import torch

    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    plan(tiny())
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002


def test_values_of_signals_are_as_many_as_planned() -> None:
    signals = [{"kind": "grad_norm"}, {"kind": "entropy", "every": 3, "levels": ["local"]}]
    for changes in ({}, {"leave_out": {"clients": "all"}}, {"rounds": 5, "observe": {"every": 1}}):
        scenario = tiny(signals=signals, **changes)
        run_plan = plan(scenario)
        bank = simulate(scenario, federations.build(scenario)).bank
        assert run_plan.signals.values == sum(block.values.size for block in bank.signals)
        read = sum(block.values.size for block in bank.signals if block.name == "grad_norm")
        assert run_plan.signals.passes == 3 * read, "of the two only the gradient norm needs passes"


@pytest.mark.parametrize(
    "logits", ["{kind: logits}", "{kind: logits, rows: 50, every: 2, levels: [global]}", "{kind: logits, every: 3}"]
)
def test_size_of_logits_is_predicted(logits: str, tmp_path: Path) -> None:
    """Of two classes and of few distinct values it is smaller."""
    changes = [f"signals=[{logits}]", "runs=4", "rounds=3", "estimators=[]", "probes=[]", "references=10"]
    scenario = load_scenario("proxies", changes)
    run_plan = plan(scenario)
    bank = simulate(scenario, federations.build(scenario)).bank
    write_signals(tmp_path, bank.signals)
    size = (tmp_path / "set_signals.parquet").stat().st_size
    assert (run_plan.signals.values, run_plan.signals.set_values) == (0, sum(b.values.size for b in bank.signals))
    assert run_plan.disk["set_signals"] == pytest.approx(size, rel=0.1)
