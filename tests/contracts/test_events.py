"""Events reach the listeners of a run in order, and from shards while these are trained."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.events import (
    Event,
    ListenerError,
    ReadingsTaken,
    RoundFinished,
    ScenarioFailed,
    ScenarioFinished,
    ScenarioStarted,
    ShardStarted,
    ShardStored,
    StageStarted,
    TrainingStarted,
)
from fedmem.errors import RunError
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.run import run
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from tests.execution.sharding_helpers import needs_forks
from tests.tiny import tiny

SMALL = {"runs": 2, "rounds": 2, "observe": {"every": 2}, "probes": [{"kind": "utility"}], "estimators": []}


def small(**changes: object) -> Scenario:
    return tiny(**SMALL | changes)


def test_a_listener_receives_every_event_in_order(tmp_path: Path) -> None:
    events: list[Event] = []
    folder = run(small(), out=tmp_path, listeners=[events.append])
    assert [type(event) for event in events if not isinstance(event, ReadingsTaken)] == [
        *(ScenarioStarted, TrainingStarted, RoundFinished, RoundFinished),
        *(StageStarted, StageStarted, ScenarioFinished),
    ]
    rounds = [event for event in events if isinstance(event, RoundFinished)]
    assert [(event.round, event.rounds, event.first, event.last) for event in rounds] == [(1, 2, 0, 1), (2, 2, 0, 1)]
    readings = [one for event in events if isinstance(event, ReadingsTaken) for one in event.measurements]
    frame = read(folder).measurements
    taken = frame[(frame["source"] == "utility") & (frame["round"] >= 0) & (frame["run"] >= 0)]
    assert sorted(one.reading.value for one in readings) == sorted(taken["value"])
    again: list[Event] = []
    run(small(), out=tmp_path, listeners=[again.append])
    assert again == [ScenarioFinished(folder=str(folder), trained=False)]


@dataclass(frozen=True, kw_only=True)
class Waiting(Sgd):
    """Goes on when a file appears, which the listener makes."""

    file: str = ""

    def batches(self, num_rows: int, rng: np.random.Generator) -> IntArray:
        deadline = time.monotonic() + 20
        while not Path(self.file).exists():
            if time.monotonic() > deadline:
                raise TimeoutError("no event of this shard was heard while it was trained")
            time.sleep(0.01)
        return super().batches(num_rows, rng)


@needs_forks
def test_events_of_shards_arrive_before_these_have_ended(tmp_path: Path) -> None:
    file = tmp_path / "heard"
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, ShardStarted):
            file.touch()

    client = {"kind": f"{__name__}:Waiting", "file": str(file)}
    run(small(client=client, speed={"shard": 1, "workers": 2}), out=tmp_path, listeners=[listen])
    for i in range(2):
        own = [type(event) for event in events if getattr(event, "first", None) == i]
        assert own == [ShardStarted, RoundFinished, RoundFinished, ShardStored]


@dataclass
class Breaking:
    """Raises at the end of a round."""

    error: BaseException

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundFinished):
            raise self.error


@pytest.mark.parametrize("speed", [{}, {"shard": 1, "workers": 1}])
@pytest.mark.parametrize("error", [KeyError("no such column"), RunError("the disk is full"), SystemExit(3)])
def test_a_listener_that_raises_ends_the_run_by_its_name(
    error: BaseException, speed: dict[str, int], tmp_path: Path
) -> None:
    with pytest.raises(ListenerError) as raised:
        run(small(speed=speed), out=tmp_path, listeners=[Breaking(error)])
    assert f"listener {__name__}:Breaking failed in RoundFinished: {type(error).__name__}: " in str(raised.value)
    assert str(error) in str(raised.value)


def test_a_listener_that_raises_ends_many_scenarios(tmp_path: Path) -> None:
    """The scenario that is under way is not at fault."""
    ended: list[Event] = []
    scenarios = [small(seed=1), small(seed=2)]
    with pytest.raises(ListenerError, match="Breaking failed in RoundFinished: ValueError: no"):
        run_all(scenarios, out=tmp_path, jobs=1, listeners=[Breaking(ValueError("no")), ended.append])
    assert not [event for event in ended if isinstance(event, ScenarioFailed)]


def test_failed_run_sends_a_last_event_with_the_error(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(RunError) as raised:
        run(small(client={"kind": "sgd", "lr": 1e30}), out=tmp_path, listeners=[events.append])
    assert events[-1] == ScenarioFailed(error=str(raised.value))
