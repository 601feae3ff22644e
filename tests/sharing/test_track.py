"""A tracked run has the same bytes as one that is not; a tool that fails is reported once, and the run goes on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import fedmem
from fedmem.contracts.events import (
    Event,
    ReadingsTaken,
    RoundFinished,
    ScenarioFailed,
    ScenarioFinished,
    ScenarioStarted,
    ShardStarted,
    TrainingStarted,
)
from fedmem.contracts.export import ExportRun, Scalar
from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.errors import ComponentError, RunError
from fedmem.sharing.export import content_of
from fedmem.sharing.track import Tracking, track
from tests.sharing.sharing_helpers import bytes_of, finished_run, scenario

STARTED = ScenarioStarted(name="tiny", id="0123", runs=4, rounds=2)


class Tool:
    """A tool that remembers what it is shown, and may fail in one of its methods."""

    extra = package = ""
    has_tables = False
    open_with = "{folder}"
    default_place = "nowhere"

    def __init__(self, fails: str = "") -> None:
        self.fails, self.points, self.ends = fails, [], []  # type: ignore[var-annotated]
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise ConnectionError("https://me:secret@example.org is gone")

    def write(self, content: Any, folder: Path, place: Path) -> None: ...

    def check(self, place: str) -> None: ...

    def track(self, place: str, title: str, run: ExportRun) -> Tool:
        self._call("track")
        self.opened = (place, title, run)
        return self

    def add(self, scalars: Iterable[Scalar]) -> None:
        self._call("add")
        self.points += [(scalar.name, scalar.step, scalar.value) for scalar in scalars]

    def close(self, run: ExportRun | None) -> None:
        self._call("close")
        self.ends.append(run)


def tracking(tool: Tool, messages: list[str]) -> Tracking:
    return Tracking(target=tool, name="tool", place="https://me:secret@example.org", warn=messages.append)


def reading(run: int, value: float, client: int = 0, **labels: Any) -> Measurement:
    part = Reading(metric="loss", value=value, labels=Labels.of(**labels))
    return Measurement(run=run, round=1, level="local", client=client, source="probe", reading=part)


@pytest.mark.parametrize("fails", ["", "track", "add", "close"])
def test_a_run_has_the_same_bytes_with_and_without(fails: str, tmp_path: Path) -> None:
    tool, messages = Tool(fails), list[str]()
    plain = finished_run()
    tracked = fedmem.run(scenario(runs=8), out=tmp_path / "tracked", listeners=[tracking(tool, messages)])
    assert plain.name == tracked.name
    others = ("manifest.json", "summary.json", "report.html")  # times and versions, and a page of the test alone
    same = {name: data for name, data in bytes_of(plain).items() if name not in others}
    assert same == {name: bytes_of(tracked)[name] for name in same}
    assert len(same) >= 6
    assert len(messages) == bool(fails)
    if fails:
        assert "tracking with tool stopped, and the run goes on: ConnectionError" in messages[0]
        assert "secret" not in messages[0]
        assert tool.calls.count(fails) == 1
    else:
        (source,) = content_of(tracked).runs
        assert tool.ends == [source]
        assert {(point.name, point.step, point.value) for point in source.scalars} <= set(tool.points)
        assert {name for name, _, _ in tool.points if name.startswith("live/")} >= {"live/accuracy"}


def test_real_tools_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    messages: list[str] = []
    tools = [track(f"{name}:{tmp_path / name}", warn=messages.append) for name in ("tensorboard", "mlflow")]
    tracked = fedmem.run(scenario(runs=8), out=tmp_path / "runs", listeners=tools)
    assert messages == []
    assert (tracked / "measurements.parquet").read_bytes() == (finished_run() / "measurements.parquet").read_bytes()
    from tests.exports.test_tensorboard import points_of, read_events

    points = points_of(read_events(tmp_path / "tensorboard" / "tiny" / tracked.name))
    assert {step for name, step in points if name == "live/accuracy"} == {2}
    assert any(name == "summary/memorisation/local/typical" for name, _ in points)


def test_readings_are_means_over_runs_and_clients() -> None:
    tool, messages = Tool(), list[str]()
    listener = tracking(tool, messages)
    measurements = (reading(0, 1.0), reading(1, 2.0, client=3), reading(1, float("nan")), reading(0, 7.0, attack="x"))
    events: list[Event] = [
        STARTED,
        TrainingStarted(rounds=2, runs=4),
        RoundFinished(round=1, rounds=2, first=0, last=3, accuracy=0.5),
        RoundFinished(round=2, rounds=2, first=0, last=3),
        ReadingsTaken(measurements=measurements),
    ]
    for event in events:
        listener(event)
    assert tool.points == [
        ("live/accuracy", 1, 0.5), ("live/loss/local/models", 1, 1.5), ("live/loss/attack-x/local/models", 1, 7.0),
    ]  # fmt: skip
    assert tool.opened[1:] == ("tiny", ExportRun(name="tiny/0123", parameters={"runs": "4", "rounds": "2"}))
    assert messages == []


def test_shards_have_series_of_their_own() -> None:
    tool = Tool()
    listener = tracking(tool, [])
    listener(STARTED)
    listener(TrainingStarted(rounds=2, runs=4, shards=2))
    for first in (0, 2):
        listener(ShardStarted(first=first, last=first + 1))
        listener(RoundFinished(round=1, rounds=2, first=first, last=first + 1, accuracy=0.5))
        listener(ReadingsTaken(measurements=(reading(first + 1, 1.0),)))
    names = [name for name, _, _ in tool.points]
    assert names == [
        "live/accuracy/runs-0-to-1", "live/loss/local/models/runs-0-to-1",
        "live/accuracy/runs-2-to-3", "live/loss/local/models/runs-2-to-3",
    ]  # fmt: skip


def test_the_pilot_run_is_not_shown() -> None:
    tool = Tool()
    listener = tracking(tool, [])
    listener(STARTED)
    listener(TrainingStarted(what="pilot", rounds=2, runs=1))
    listener(RoundFinished(round=1, rounds=2, first=0, last=0, accuracy=0.1))
    listener(TrainingStarted(rounds=2, runs=4))
    listener(RoundFinished(round=1, rounds=2, first=0, last=3, accuracy=0.2))
    assert tool.points == [("live/accuracy", 1, 0.2)]


def test_scenarios_at_once_are_separate_and_ends_are_shown() -> None:
    tools = Tool()
    listener = tracking(tools, [])
    for place in (0, 1, 2):
        listener(ScenarioStarted(place=place, name="tiny", id=str(place), runs=4, rounds=2))
    listener(ScenarioFailed(place=1, error="no"))
    assert tools.ends == [None]
    listener(ScenarioFinished(place=0, folder=str(finished_run())))
    assert tools.ends[1] is not None
    assert tools.ends[1].name == f"tiny/{finished_run().name}"
    listener.close()
    assert tools.ends[2:] == [None]
    listener(ScenarioFinished(place=7, folder="finished before"))
    assert len(tools.ends) == 3


def test_wrong_tools_and_places_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"--track: there is no such tool 'csv'; choose from: mlflow, tensorboard"):
        track("csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write to .*file.*another place, as in --track tensorboard:PLACE"):
        track(f"tensorboard:{tmp_path / 'file'}")


def test_ctrl_c_within_a_tool_stays_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    tool = Tool()
    monkeypatch.setattr(tool, "track", stop)
    with pytest.raises(KeyboardInterrupt):
        tracking(tool, [])(STARTED)
