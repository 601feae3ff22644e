"""Many scenarios at once: the same bytes as each alone, whoever fails, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.events import (
    Event,
    RoundFinished,
    ScenarioFailed,
    ScenarioFinished,
    ScenariosStarted,
    Share,
    TrainingStarted,
)
from fedmem.engines import shared_training
from fedmem.errors import FolderError, RunError
from fedmem.execution import grouping, many_scenarios
from fedmem.execution.grouping import divide_into_banks
from fedmem.execution.many_scenarios import run_all
from fedmem.processes import can_fork
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.training.client_work import Work
from fedmem.training.stacked import Stacked
from tests.execution.many_scenarios_helpers import runner_alone, small
from tests.execution.sharding_helpers import written

TOYS = {"strategy": {"kind": "tests.toys:Counting"}, "client": {"kind": "tests.toys:Carrying"}}


ALIKE = [
    small(),
    small(strategy={"kind": "fedmedian"}, sampler={"kind": "poisson", "rate": 0.4}, speed={"server": "messages"}),
    small(strategy={"kind": "fedprox", "mu": 0.1}, seed=4, rounds=3),
    small(speed={"shard": 2}, sampler={"kind": "by_size", "size": 2}),
    small(strategy={"kind": "flwr.serverapp.strategy:FedTrimmedAvg"}, seed=4, population=10),
]
"""One client algorithm, but different strategies, samplers, data, numbers of rounds, paths and shards."""
DEFENDED = [small(defences=[{"kind": "noise"}], seed=seed) for seed in (3, 4)]
"""Clients that draw for what they send, each from the streams of its own seed."""
CARRYING = [small(**TOYS, rounds=3), small(**TOYS, rounds=3, sampler={"kind": "poisson", "rate": 0.5})]
"""Clients that are offered arrays and remember, so that some remember and some do not yet."""


@dataclass
class Heard:
    """Who was under way and who ended, in turn."""

    there: int = -1
    shares: dict[int, list[float]] | None = None
    ends: dict[int, str | None] | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, ScenariosStarted):
            self.there, self.ends = event.finished, {}
            self.shares = {i: [] for i in range(event.total)}
            self.each = {i: Share() for i in range(event.total)}
        elif isinstance(event, TrainingStarted | RoundFinished):
            assert self.shares is not None
            self.each[event.place](event)
            self.shares[event.place].append(self.each[event.place].done)
        elif isinstance(event, ScenarioFinished | ScenarioFailed):
            assert self.ends is not None
            assert event.place not in self.ends
            self.ends[event.place] = event.error if isinstance(event, ScenarioFailed) else None


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scenario], dict[str, bytes]]:
    """What a scenario writes that is run by itself."""
    return runner_alone(tmp_path_factory.mktemp("alone"))


def test_many_at_once_are_what_each_is_alone(alone: Callable[[Scenario], dict[str, bytes]], tmp_path: Path) -> None:
    scenarios = [*ALIKE[:2], CARRYING[0], *ALIKE[2:], CARRYING[1]]
    heard = Heard()
    # settings of speed that differ go into banks of their own; here all have to be in two
    same = [one.model_copy(update={"speed": scenarios[0].speed}) for one in scenarios]
    banks, apart = divide_into_banks(dict(enumerate(same)), workers=1)
    assert sorted(map(sorted, banks)) == [[0, 1, 3, 4, 5], [2, 6]]
    assert not apart
    outcomes = run_all(same, out=tmp_path, jobs=1, listeners=[heard])
    for scenario, outcome in zip(scenarios, outcomes, strict=True):
        assert outcome.error is None
        assert written(outcome.folder) == alone(scenario)
    assert heard.ends == dict.fromkeys(range(7))
    assert all(shares[0] == 0 and shares[-1] == 1 for shares in (heard.shares or {}).values())


def test_defences_draw_what_they_draw_alone(alone: Callable[[Scenario], dict[str, bytes]], tmp_path: Path) -> None:
    for scenario, outcome in zip(DEFENDED, run_all(DEFENDED, out=tmp_path, jobs=1), strict=True):
        assert outcome.error is None
        assert written(outcome.folder) == alone(scenario)


@pytest.mark.parametrize(
    "changes",
    [{"freeze": ["hidden1.*"]}, {"model": {"kind": "tests.normalised:Normed", "p": 0.3}, "norm": {"kind": "averaged"}}],
)
def test_networks_of_their_own_give_what_each_gives_alone(
    changes: dict[str, Any], alone: Callable[[Scenario], dict[str, bytes]], tmp_path: Path
) -> None:
    """Another seed has another frozen base, and other draws."""
    scenarios = [small(**changes), small(**changes, seed=4), small(**changes, strategy={"kind": "fedmedian"})]
    for scenario, outcome in zip(scenarios, run_all(scenarios, out=tmp_path, jobs=1), strict=True):
        assert outcome.error is None
        assert written(outcome.folder) == alone(scenario)


@pytest.mark.skipif(not can_fork(), reason="forks are for Linux")
def test_processes_and_other_settings_of_speed_change_no_byte(
    alone: Callable[[Scenario], dict[str, bytes]], tmp_path: Path
) -> None:
    scenarios = [ALIKE[0], ALIKE[1], ALIKE[3]]
    assert len(divide_into_banks(dict(enumerate(scenarios)), workers=2)[0]) == 3
    for outcome in run_all(scenarios, out=tmp_path, jobs=2):
        assert written(outcome.folder) == alone(outcome.scenario)


def test_stores_too_large_to_copy_are_trained_separately(
    alone: Callable[[Scenario], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here in shards as well, each of which is kept as it is done."""
    monkeypatch.setattr(shared_training, "JOINED_BYTES", 0)
    shards = [one.model_copy(update={"speed": ALIKE[3].speed}) for one in (ALIKE[0], ALIKE[2])]
    for outcome in run_all(shards, out=tmp_path, jobs=1):
        assert len(read(outcome.folder).manifest["shards"]["runs"]) == 2
        assert written(outcome.folder) == alone(outcome.scenario)


def test_models_over_the_round_budget_are_held_by_one_scenario(
    alone: Callable[[Scenario], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(grouping, "ROUND_BYTES", 1)
    for outcome in run_all([ALIKE[0], ALIKE[2]], out=tmp_path, jobs=1):
        assert written(outcome.folder) == alone(outcome.scenario)


def test_failing_scenario_does_not_affect_the_others(
    alone: Callable[[Scenario], dict[str, bytes]], tmp_path: Path
) -> None:
    """In its strategy, in its data, and in its clients: those of one scenario learn so fast that they diverge."""
    scenarios = [
        small(strategy={"kind": "tests.execution.many_scenarios_helpers:Breaking"}),
        small(population=10**6),
        ALIKE[0],
        small(client={"kind": "sgd", "lr": 1e30}),
    ]
    heard = Heard()
    outcomes = run_all(scenarios, out=tmp_path, jobs=1, listeners=[heard])
    assert [outcome.error is None for outcome in outcomes] == [False, False, True, False]
    assert written(outcomes[2].folder) == alone(ALIKE[0])
    assert not outcomes[0].folder.exists()
    assert heard.ends == {i: outcome.error and str(outcome.error) for i, outcome in enumerate(outcomes)}
    assert "population" in str(outcomes[1].error)


@pytest.mark.skipif(not can_fork(), reason="forks are for Linux")
def test_a_process_that_dies_loses_only_what_it_had_not_finished(tmp_path: Path) -> None:
    killed = small(
        strategy={"kind": "tests.execution.many_scenarios_helpers:Breaking", "kill": True},
        client={"kind": "sgd", "lr": 0.3},
    )
    outcomes = run_all([ALIKE[0], killed, ALIKE[2]], out=tmp_path, jobs=2)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert "signal 9" in str(outcomes[1].error)
    assert "scenarios 2" in str(outcomes[1].error)


def test_a_stack_that_fails_as_a_whole_is_tried_bank_by_bank(
    alone: Callable[[Scenario], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempt = Stacked.attempt_all

    def failing(self: Stacked, work: Work) -> Any:
        if len(work) > 12:
            raise RuntimeError("too many")
        return attempt(self, work)

    monkeypatch.setattr(Stacked, "attempt_all", failing)
    for outcome in run_all([ALIKE[0], ALIKE[2]], out=tmp_path, jobs=1):
        assert written(outcome.folder) == alone(outcome.scenario)


def test_internal_errors_are_raised_and_not_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr(many_scenarios, "compute", wrong)
    with pytest.raises(AssertionError, match="ours"):
        run_all([small(), small(seed=4)], out=tmp_path, jobs=1)


def test_finished_scenarios_are_not_run_again_unless_forced(tmp_path: Path) -> None:
    scenarios = [small(runs=2), small(runs=2, seed=4)]
    (first,) = run_all(scenarios[:1], out=tmp_path, jobs=1)
    when = (first.folder / "manifest.json").stat().st_mtime_ns
    heard = Heard()
    outcomes = run_all(scenarios, out=tmp_path, jobs=1, listeners=[heard])
    assert [outcome.was_finished for outcome in outcomes] == [True, False]
    assert heard.there == 1
    assert (first.folder / "manifest.json").stat().st_mtime_ns == when
    run_all(scenarios, out=tmp_path, jobs=1, force=True)
    assert (first.folder / "manifest.json").stat().st_mtime_ns > when


def test_occupied_place_is_an_error_before_any_training(tmp_path: Path) -> None:
    scenarios = [small(runs=2), small(runs=2, seed=4)]
    place = tmp_path / "tiny" / scenarios[1].id
    place.mkdir(parents=True)
    (place / "mine.txt").write_text("x")
    with pytest.raises(FolderError, match="no finished run"):
        run_all(scenarios, out=tmp_path, jobs=1)
    assert not (tmp_path / "tiny" / scenarios[0].id).exists()


def test_failure_of_a_scenario_is_a_run_error(tmp_path: Path) -> None:
    (outcome,) = run_all(
        [small(strategy={"kind": "tests.execution.many_scenarios_helpers:Breaking"})], out=tmp_path, jobs=1
    )
    assert isinstance(outcome.error, RunError)
