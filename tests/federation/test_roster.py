"""Cohorts are drawn once for all runs that share them, and a round costs what its cohort costs."""

import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.events import Event, RoundFinished, TrainingStarted
from fedmem.contracts.sampler import History
from fedmem.execution.bank import simulate
from fedmem.federation import build as federations
from fedmem.federation.roster import Roster, _CohortDraws, rosters
from tests.narrowing import instance
from tests.tiny import tiny


@dataclass(frozen=True, kw_only=True)
class Noted:
    """Client 0 alone; what it was shown is kept."""

    seen: list[History] = field(default_factory=list)

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        self.seen.append(history)
        assert history.last_round[0] == round_number - 1
        return np.array([0])


@pytest.mark.parametrize(("roster", "times"), [("shared", 3), ("per_run", 12)])
def test_runs_that_share_a_roster_draw_it_once(roster: str, times: int) -> None:
    sampler = Noted()
    scenario = tiny(roster=roster).model_copy(update={"sampler": sampler})
    found = rosters(scenario, federations.build(scenario), range(4))
    assert [found[run].cohort(3) for run in range(4)] == [(0,)] * 4
    assert [found[run].cohort(1) for run in range(4)] == [(0,)] * 4
    assert len(sampler.seen) == times


@pytest.mark.parametrize("changes", [{}, {"roster": "per_run"}, {"leave_out": {"clients": "all"}}])
def test_together_they_are_what_each_is_alone(changes: dict[str, Any]) -> None:
    scenario = tiny(**changes)
    federation = federations.build(scenario)
    found = rosters(scenario, federation, (1, 3))
    for run in (1, 3):
        alone = Roster(scenario, federation, run)
        assert [found[run].cohort(round_number) for round_number in (1, 2, 3)] == [
            alone.cohort(round_number) for round_number in (1, 2, 3)
        ]
    cohorts = {found[run].cohort(round_number) for run in found for round_number in range(1, 9)}
    assert any(len(cohort) < 3 for cohort in cohorts) == ("leave_out" in changes), "places of the left out stay empty"


def test_a_sampler_cannot_write_into_what_it_is_shown() -> None:
    sampler = Noted()
    scenario = tiny().model_copy(update={"sampler": sampler})
    Roster(scenario, federations.build(scenario), 0).cohort(2)
    for name in ("sizes", "atypical", "order", "last_round", "last_loss", "last_norm"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(sampler.seen[0], name)[0] = 1


CLIENTS = 200_000


@pytest.fixture(scope="module")
def wide() -> Any:
    """Very many clients with a row each, and a few examples at some of them."""
    scenario = tiny(
        clients=CLIENTS,
        runs=2,
        rounds=12,
        population=0,
        references=1,
        dataset={"kind": "synthetic", "rows": CLIENTS + 100, "shape": [2], "test": 5},
        model={"kind": "logistic"},
        injections=[{"kind": "typical", "clients": {"count": 5}, "start": 3, "stop": 9}],
        observe={},
    )
    return scenario, federations.build(scenario)


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_no_round_makes_anything_for_each_client(wide: Any, server: str) -> None:
    """Between rounds less memory is asked for, by Python and numpy, than one byte for each client."""
    scenario, federation = wide
    scenario = scenario.model_copy(update={"speed": scenario.speed.model_copy(update={"server": server})})
    grown: list[int] = []

    class Rounds:
        last = 0

        def __call__(self, event: Event) -> None:
            if isinstance(event, TrainingStarted):
                tracemalloc.start()
            elif isinstance(event, RoundFinished):
                now, peak = tracemalloc.get_traced_memory()
                grown.append(peak - self.last if event.round > 1 else 0)
                self.last = now
                tracemalloc.reset_peak()

    try:
        simulate(scenario, federation, emit=Rounds())
    finally:
        tracemalloc.stop()
    assert len(grown) == 12
    assert max(grown) < CLIENTS


def test_rows_are_found_for_those_that_train(wide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, federation = wide
    asked = []
    original = type(federation).rows

    def rows(self: Any, run: int, client: int, round_number: int) -> IntArray:
        asked.append((run, client, round_number))
        out: IntArray = original(self, run, client, round_number)
        return out

    monkeypatch.setattr(type(federation), "rows", rows)
    bank = simulate(scenario, federation).bank
    assert set(asked) == {(part.run, part.client, part.round) for part in bank.participation}


def test_loss_and_norm_are_learnt_by_an_own_roster_alone() -> None:
    for roster in ("per_run", "shared"):
        scenario = tiny(roster=roster)
        federation = federations.build(scenario)
        one = Roster(scenario, federation, 1)
        before, sent = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}
        one.learn(2, before, sent, 0.5)
        known = instance(one._draws, _CohortDraws).history
        assert (known.last_loss[2] == 0.5) == (known.last_norm[2] == 5.0) == (roster == "per_run")
        assert np.isnan(known.last_loss).sum() == (4 if roster == "per_run" else 5)
