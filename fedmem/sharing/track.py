"""`fedmem run --track`: a listener that shows a run in another tool while it trains."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

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
from fedmem.contracts.export import ExportRun, Scalar, Tracker, TrackingTarget, series_name
from fedmem.contracts.measurement import Labels, Measurement
from fedmem.errors import ComponentError, RunError
from fedmem.guards.guarding import NOT_OURS
from fedmem.results.urls import public_url, without_secrets
from fedmem.wording import choices

LIVE = "live/"
"""Before the names of series that grow while a run trains."""


def track(to: str, *, warn: Callable[[str], object] | None = None) -> Tracking:
    """A listener that shows runs in TensorBoard or MLflow while they train: `listeners=[fedmem.track("tensorboard")]`.

    While a run trains, accuracy and readings of probes are shown. When it is finished, all its series, its summary and
    its scenario follow. The results of a run are the same with and without it. A tool that fails later is reported
    once, and the run goes on without it.

    Args:
        to: The target, or target and place: `tensorboard:FOLDER`, `mlflow:FOLDER` or `mlflow:ADDRESS`.
        warn: Receives messages; by default they go to standard error.

    Errors: `ComponentError` for a wrong target, or one whose package is not installed. `RunError` where the place
    cannot be written.
    """
    from fedmem.sharing.targets import require_package, tracking_names

    name, _, place = to.partition(":")
    if name not in tracking_names():
        raise ComponentError("--track", f"there is no such tool {name!r}{choices(name, tracking_names())}")
    target = require_package(name, "--track")
    assert isinstance(target, TrackingTarget)
    place = place or target.default_place
    try:
        target.check(place)
    except NOT_OURS:
        raise
    except Exception as error:
        # a library of somebody else can fail in any way
        reason = _reason(error, place)
        raise RunError(
            f"{name} cannot write to {public_url(place)}: {reason}; choose another place, as in --track {name}:PLACE"
        ) from None
    return Tracking(target=target, name=name, place=place, warn=warn or _warn)


@dataclass(kw_only=True, eq=False)
class _OpenRun:
    """A run that is tracked: its shards, and whether its pilot run is training now."""

    tracker: Tracker
    shards: dict[int, tuple[int, int]] = field(default_factory=dict)
    num_shards: int = 1
    is_pilot: bool = False

    def name(self, name: str, run: int) -> str:
        """The name of a series; where a bank is trained in shards, each has its own."""
        first, last = self.shards.get(run, (run, run))
        return f"{LIVE}{name}/runs-{first}-to-{last}" if self.num_shards > 1 else f"{LIVE}{name}"


@dataclass(kw_only=True, eq=False)
class Tracking:
    """The listener that `track` returns. It receives the events of one scenario, or of many at once.

    Attributes:
        target: The tool.
        name: Its name.
        place: Where it writes.
        warn: Receives the message about a failure, of which there is one at most.
    """

    target: TrackingTarget
    name: str
    place: str
    warn: Callable[[str], object]
    _open: dict[int, _OpenRun] = field(init=False, default_factory=dict)
    _has_failed: bool = field(init=False, default=False)

    def __call__(self, event: Event) -> None:
        """Shows what the event says. Whatever the tool raises is reported once, and ends the tracking alone."""
        if self._has_failed:
            return
        try:
            self._receive(event)
        except NOT_OURS:
            raise
        except Exception as error:
            # a library of somebody else can fail in any way
            self._has_failed = True
            self.warn(
                f"tracking with {self.name} stopped, and the run goes on: {_reason(error, self.place)}. Its results "
                f"will be complete; when it is finished, use: fedmem export FOLDER --to {self.name}"
            )

    def close(self) -> None:
        """Ends the runs that are still open, which were interrupted or have failed."""
        for place in list(self._open):
            self(ScenarioFailed(place=place, error="interrupted"))

    def _receive(self, event: Event) -> None:
        if isinstance(event, ScenarioStarted):
            begun = ExportRun(
                name=f"{event.name}/{event.id}", parameters={"runs": str(event.runs), "rounds": str(event.rounds)}
            )
            self._open[event.place] = _OpenRun(tracker=self.target.track(self.place, event.name, begun))
        run = self._open.get(event.place)
        if run is None:
            return
        if isinstance(event, ScenarioFinished | ScenarioFailed):
            del self._open[event.place]
            run.tracker.close(self._finish(run.tracker, event))
        elif isinstance(event, TrainingStarted):
            run.is_pilot, run.num_shards = event.what == "pilot", event.shards
        elif isinstance(event, ShardStarted):
            run.shards.update(dict.fromkeys(range(event.first, event.last + 1), (event.first, event.last)))
        elif isinstance(event, RoundFinished | ReadingsTaken) and not run.is_pilot:
            run.tracker.add(_points(run, event))

    def _finish(self, tracker: Tracker, event: ScenarioFinished | ScenarioFailed) -> ExportRun | None:
        """All series of a finished run are added; a failed one has none."""
        from pathlib import Path

        from fedmem.sharing.export import content_of

        if isinstance(event, ScenarioFailed):
            return None
        (run,) = content_of(Path(event.folder)).runs
        tracker.add(run.scalars)
        return run


def _points(run: _OpenRun, event: RoundFinished | ReadingsTaken) -> Iterator[Scalar]:
    """The finite numbers of an event: of readings the mean over runs and clients."""
    if isinstance(event, RoundFinished):
        if event.accuracy is not None and math.isfinite(event.accuracy):
            yield Scalar(name=run.name("accuracy", event.first), step=event.round, value=event.accuracy)
        return
    for (name, first, step), values in _by_series(event.measurements).items():
        yield Scalar(name=run.name(name, first), step=step, value=sum(values) / len(values))


def _by_series(measurements: Iterable[Measurement]) -> dict[tuple[str, int, int], list[float]]:
    """The finite readings of each series; readings about single examples are in no series."""
    series: dict[tuple[str, int, int], list[float]] = {}
    rows = [row for row in measurements if row.run is not None and row.round is not None]
    first = min((row.run_number for row in rows), default=0)
    for row in rows:
        reading = row.reading
        if math.isfinite(reading.value) and not reading.subject.isdecimal():
            labels: Labels = reading.labels
            name = series_name(reading.metric, labels, row.level, reading.subject)
            series.setdefault((name, first, row.round_number), []).append(reading.value)
    return series


def _reason(error: Exception, place: str) -> str:
    """An error of a library in one line, without keys in addresses."""
    text = " ".join(str(error).split()) or "no reason is given"
    return without_secrets(f"{type(error).__name__}: {text}", place)


def _warn(message: str) -> None:
    sys.stderr.write(f"warning: {message}\n")
