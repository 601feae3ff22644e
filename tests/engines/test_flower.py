"""The engine `flower`: equal to lockstep, and what it makes of clients that fail, die or hang."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from fedmem.contracts.evidence import Participation, TrainedBank, Transition
from fedmem.engines import _transport, flower
from fedmem.engines._client import client_app
from fedmem.engines._flower import in_process
from fedmem.engines._messages import Assignment
from fedmem.engines.lockstep import Lockstep
from fedmem.errors import RunError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork
from tests.engines.flower_helpers import Loopback, met
from tests.tiny import tiny

# processes and sockets that Ray leaves to the collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def on_flower(grid: Grid, scenario: Scenario) -> TrainedBank:
    with flower.use_grid(grid):
        return simulate(scenario, build(scenario))


def pair(changes: dict[str, Any]) -> tuple[Scenario, Scenario]:
    """The same scenario for lockstep and for Flower's runtime."""
    return tiny(**changes, speed={"executor": "one_by_one", "workers": 1}), tiny(**changes, speed={"engine": "flower"})


def same(one: Any, other: Any) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def failures(found: Sequence[Participation]) -> set[tuple[int, int, int]]:
    return {(part.run, part.round, part.client) for part in found if part.failed}


# --- equality ---------------------------------------------------------------------------------------------------------

TOYS = {"strategy": {"kind": "tests.toys:Counting"}, "client": {"kind": "tests.toys:Carrying"}, "rounds": 6}
LEAKAGE = {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 3}}
CASES: dict[str, dict[str, Any]] = {
    "canary clients": {
        "sampler": {"kind": "poisson", "rate": 0.3},
        "strategy": {"kind": "dp_fedavg", "expected_cohort_size": 6, "canary_clients": 15},
        "probes": [{"kind": "canary_clients"}],
    },
    "dp_sgd": {"client": {"kind": "dp_sgd", "batch_size": 6, "steps": 3}},
    "fedavg": {"probes": [{"kind": "utility"}], "save": {"params": True}},
    "krum": {"strategy": {"kind": "krum"}, "sampler": {"kind": "uniform", "size": 4}},
    "trimmed_mean": {
        "strategy": {"kind": "trimmed_mean"},
        "sampler": {"kind": "everyone"},
        "initial_weights": "per_run",
    },
    "layers that stay": {"client": {"kind": "fedper", "lr": 0.2}, "rounds": 6},
    "statistics that are averaged, and dropout": {
        "model": {"kind": "tests.normalised:Normed", "p": 0.3},
        "norm": {"kind": "averaged"},
    },
    "statistics that stay": {"model": {"kind": "tests.normalised:Normed"}, "norm": {"kind": "local"}, "rounds": 6},
    "scaffold": {"strategy": {"kind": "scaffold"}},
    "defences": {"defences": [{"kind": kind} for kind in ("prune", "clip", "noise", "quantise")]},
    "offers and memory": {**TOYS, "sampler": {"kind": "poisson", "rate": 0.5}},
    "first steps repeated": {
        **TOYS,
        "client": {"kind": "tests.toys:Scheduled"},
        "probes": [LEAKAGE],
        "sampler": {"kind": "uniform", "size": 2},
    },
    "kept is not sent": {"client": {"kind": "tests.toys:Secretive"}},
    "a config that is heeded": {"strategy": {"kind": "flwr.serverapp.strategy:FedProx", "proximal_mu": 0.5}},
    "evaluating": {
        "strategy": {
            "kind": "flwr.serverapp.strategy:FedAvg",
            "fraction_evaluate": 1.0,
            "min_evaluate_nodes": 1,
        }
    },
    "rosters that learn": {"sampler": {"kind": "tests.toys:Loudest"}, "roster": "per_run", "runs": 2},
    "cohorts of a pilot": {
        "sampler": {"kind": "power_of_choice", "size": 2, "candidates": 4},
        "roster": "pilot",
        "rounds": 6,
    },
    "twins": {"twins": 2, "runs": 4},
    "the same batches": {"batches": "shared"},
    "a part of the test set": {
        "observe": {"every": 2, "test": {"levels": ["global"], "rows": 30, "precision": "float32"}}
    },
    "clients left out": {"leave_out": {"clients": "all"}, "sampler": {"kind": "poisson", "rate": 0.3}},
}


OFTEN = ("fedavg", "dp_sgd", "scaffold", "offers and memory", "defences", "statistics that are averaged, and dropout")
"""Cases that are compared whenever tests of Flower run; the others by `make nightly`."""


@pytest.mark.flower
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in OFTEN else [pytest.mark.nightly]) for case in CASES]
)
def test_equal_to_lockstep_to_the_last_bit(grid: Grid, case: str) -> None:
    """Parameters, who took part, evidence and readings."""
    here, there = pair(CASES[case])
    one, other = simulate(here, build(here)), on_flower(grid, there)
    assert same(one.params, other.params)
    assert one.bank.participation == other.bank.participation
    assert len(one.bank.evidence) == len(other.bank.evidence) > 0
    assert len(one.bank.references) == len(other.bank.references) > 0
    for kind in ("evidence", "references"):
        for a, b in zip(getattr(one.bank, kind), getattr(other.bank, kind), strict=True):
            for name, value in vars(a).items():
                np.testing.assert_array_equal(value, vars(b)[name], err_msg=name)
    assert [str(m) for m in one.measurements] == [str(m) for m in other.measurements]
    assert one.reconstructions.keys() == other.reconstructions.keys()
    for name, array in one.reconstructions.items():
        np.testing.assert_array_equal(array, other.reconstructions[name])


# --- failures ---------------------------------------------------------------------------------------------------------


def failing(**fields: Any) -> dict[str, Any]:
    return {
        "strategy": {"kind": "tests.faults:Numbering"},
        "client": {"kind": "tests.faults:Failing", **fields},
        "sampler": {"kind": "everyone"},
        "runs": 2,
        "rounds": 3,
    }


CAUSES = {
    "raise": "ValueError: this client fails on purpose",
    "leave": "SystemExit: 3",
    "nan": "its model is not finite",
    "killed": "its worker process died",
}


@pytest.mark.flower
@pytest.mark.parametrize("how", ["raise", "leave", "nan", "killed"])
def test_failure_on_flower_names_round_client_and_cause(grid: Grid, how: str) -> None:
    with pytest.raises(RunError, match=rf"round 2: 1 of 5 clients failed, first client 1: {CAUSES[how]}.*tolerate"):
        on_flower(grid, pair(failing(how=how))[1])


@pytest.mark.flower
@pytest.mark.parametrize("how", ["raise", "nan", pytest.param("die", marks=pytest.mark.nightly)])
def test_tolerated_failure_is_recorded_and_affects_no_other(grid: Grid, how: str) -> None:
    changes = failing(how=how) | {"tolerate": {"max_failed_share": 0.3}}
    found = on_flower(grid, pair(changes)[1])
    assert failures(found.bank.participation) == {(0, 2, 1), (1, 2, 1)}
    assert len(found.bank.participation) == 2 * 3 * 5
    # the same, without a process to lose
    reference = pair(failing() | {"tolerate": {"max_failed_share": 0.3}})[0]
    assert same(found.params, simulate(reference, build(reference)).params)


@pytest.mark.flower
def test_a_share_of_the_clients_fails_in_every_round(grid: Grid) -> None:
    changes = failing(clients=[0, 3], rounds=[1, 2, 3]) | {"tolerate": {"max_failed_share": 0.4}}
    found = on_flower(grid, pair(changes)[1])
    expected = {(run, round_number, client) for run in range(2) for round_number in (1, 2, 3) for client in (0, 3)}
    assert failures(found.bank.participation) == expected
    with pytest.raises(RunError, match="round 1: 2 of 5 clients failed, first client 0"):
        on_flower(grid, pair(changes | {"tolerate": {"max_failed_share": 0.39}})[1])


@pytest.mark.flower
def test_a_worker_that_dies_once_costs_nothing(grid: Grid, tmp_path: Path) -> None:
    """What it was doing is done again, from the same streams."""
    marker = tmp_path / "died"
    found = on_flower(grid, pair(failing(how="killed", marker=str(marker)))[1])
    assert marker.exists()
    assert not failures(found.bank.participation)
    well = pair(failing(clients=[]))[0]
    assert same(found.params, simulate(well, build(well)).params)


@pytest.mark.flower
def test_a_client_that_hangs_is_ended(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "CLIENT_SECONDS", 4.0)
    changes = failing(how="hang") | {"tolerate": {"max_failed_share": 0.3}}
    found = on_flower(grid, pair(changes)[1])
    assert failures(found.bank.participation) == {(0, 2, 1), (1, 2, 1)}


@pytest.mark.flower
def test_tolerated_non_finite_models_reach_the_strategy(grid: Grid) -> None:
    changes = failing(how="nan", rounds=[3]) | {"tolerate": {"not_finite": True}}
    found = on_flower(grid, pair(changes)[1])
    assert not failures(found.bank.participation)
    assert all(bool(value.isnan().any()) for params in found.params for value in params.values())


class Reports:
    """A watcher that keeps what clients say."""

    def __init__(self) -> None:
        self.turns: dict[tuple[int, int, int], float] = {}
        self.sums: dict[tuple[int, int], float] = {}

    def observes_round(self, round_number: int) -> bool:
        return True

    def see(self, transitions: Sequence[Transition]) -> None:
        for t in transitions:
            if t.level == "local":
                self.turns[t.run, t.round, t.client] = t.report["turns"]
                self.sums[t.run, t.round] = float(sum(value.double().sum() for value in t.before.values()))


def watched(engine: Any, scenario: Scenario, grid: Grid | None = None) -> tuple[Any, Reports]:
    federation, seen = build(scenario), Reports()
    work = LocalWork(federation, scenario.client, scenario.seed)
    if grid is None:
        executor = OneByOne(federation.model, scenario.client, federation.store)
        return Lockstep(scenario, federation, executor, work, seen).train(range(scenario.runs)), seen
    with flower.use_grid(grid):
        return engine(scenario, federation, work, seen).train(range(scenario.runs)), seen


@pytest.mark.flower
def test_client_failing_in_one_run_is_dropped_in_all_and_forgets(grid: Grid) -> None:
    """Although it has trained in the others: a coin must not decide who takes part."""
    well = pair(failing(clients=[]) | {"runs": 4, "rounds": 4})[0]
    _, seen = watched(Lockstep, well)
    sums = sorted(seen.sums[run, 2] for run in range(4))
    threshold = (sums[-2] + sums[-1]) / 2
    assert sums[-2] < threshold < sums[-1], "the models of the runs differ"
    changes = failing(above=threshold) | {"runs": 4, "rounds": 4, "tolerate": {"max_failed_share": 0.3}}
    here, there = pair(changes)
    one, told = watched(Lockstep, here)
    other, said = watched(flower.FlowerRuntime, there, grid)
    assert failures(other.participation) == {(run, 2, 1) for run in range(4)}
    assert one.participation == other.participation
    assert same(one.params, other.params)
    assert said.turns == told.turns
    assert {said.turns[run, 4, 1] for run in range(4)} == {2.0}


# --- the runtime itself -----------------------------------------------------------------------------------------------


@pytest.mark.flower
def test_workers_with_another_federation_are_refused(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport, "digest", lambda federation: "another")
    with pytest.raises(RunError, match="another federation"):
        on_flower(grid, pair({})[1])


@pytest.mark.flower
def test_fewer_nodes_than_clients_are_refused(grid: Grid) -> None:
    with pytest.raises(RunError, match=r"5 nodes for 7 clients.*num-supernodes=7"):
        on_flower(grid, pair({"clients": 7})[1])


@pytest.mark.flower
def test_federation_that_workers_cannot_build_is_an_early_error(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scenario, "to_yaml", lambda scenario: "{rounds: 1}")
    with pytest.raises(RunError, match="could not build the federation: ScenarioError"):
        on_flower(grid, pair({})[1])


class Workers(Loopback):
    """Answers as worker processes do, which build the federation from the scenario."""

    def reply(self, message: Message) -> Message:
        partition = self.partitions[message.metadata.dst_node_id]
        config: dict[str, bool | float | int | str] = {} if partition is None else {"partition-id": partition}
        state = RecordDict()
        return client_app(message, Context(run_id=1, node_id=1, node_config=config, state=state, run_config={}))


def test_workers_that_differ_in_anything_are_refused() -> None:
    """Also in what no client trains on: the test set, the population, the coins of clients."""
    scenario = tiny(clients=3, leave_out={"clients": "all"})
    built = build(scenario)
    work = Assignment(scenario=scenario.to_yaml(), seconds=60.0)
    coins = built.audit.client_in
    assert coins is not None
    others = [
        replace(built, audit=replace(built.audit, client_in=~coins)),
        replace(built, test=built.test.take(np.arange(1, len(built.test)))),
        replace(built, population=built.population.take(np.arange(1, len(built.population)))),
    ]
    with in_process():
        _transport.Transport(Workers({1: 0, 2: 1, 3: 2}), lambda: None).handshake(built, work)
        for other in others:
            with pytest.raises(RunError, match="a client's process built another federation than the server"):
                _transport.Transport(Workers({1: 0, 2: 1, 3: 2}), lambda: None).handshake(other, work)


@pytest.mark.usefixtures("here")
def test_nodes_without_a_valid_partition_are_refused() -> None:
    with pytest.raises(RunError, match="no partition-id"):
        met(Loopback({1: None, 2: 0, 3: 1}))
    with pytest.raises(RunError, match="no node has partition-id 2; clients are the partitions 0 to 2"):
        met(Loopback({1: 0, 2: 0, 3: 1}))
