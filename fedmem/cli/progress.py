"""Listeners that show progress: rounds, runs, time left and the accuracy of the global models."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from fedmem.cli.terminal import warning_text
from fedmem.contracts.events import (
    Event,
    RoundFinished,
    ScenarioFailed,
    ScenarioFinished,
    ScenariosStarted,
    ScenarioStarted,
    ShardStored,
    Share,
    StageStarted,
    TrainingStarted,
    count,
    runs_text,
)

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


@dataclass(kw_only=True, eq=False)
class _Output:
    """Where a listener writes, and how often.

    Attributes:
        quiet: whether nothing is written.
        stream: standard error, unless another is given.
        every_seconds: time between two lines where the stream is no terminal.
        clock: Returns the time in seconds.
    """

    quiet: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    every_seconds: float = 5.0
    clock: Callable[[], float] = time.monotonic

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a full disk behind standard error is no reason to stop training
            self.stream.write(text)
            self.stream.flush()


@dataclass(kw_only=True, eq=False)
class Progress(_Output):
    """A bar on a terminal, a plain line every few seconds elsewhere, nothing if `quiet`; always on standard error.

    A listener of one scenario. The time left is the time so far, times the share to come over the share that is done.
    Used as a context manager, it leaves the terminal in order whatever happens inside.

    >>> with Progress(quiet=True) as progress:
    ...     progress(TrainingStarted(rounds=2, runs=4))
    ...     progress(RoundFinished(round=1, rounds=2, first=0, last=3, accuracy=0.5))
    ...     progress.text()
    'round 1 of 2, 4 runs'
    """

    _training: TrainingStarted = field(init=False, default=TrainingStarted(rounds=0, runs=0))
    _share: Share = field(init=False, default_factory=Share)
    _stored: set[int] = field(init=False, default_factory=set)
    _latest: dict[int, RoundFinished] = field(init=False, default_factory=dict)
    _started: float = field(init=False, default=0.0)
    _last_line: float = field(init=False, default=0.0)
    _bar: Bar | None = field(init=False, default=None)
    _task: int = field(init=False, default=0)
    _utility: tuple[int, str] | None = field(init=False, default=None)

    def __call__(self, event: Event) -> None:
        """Show warnings, and what concerns the progress of the training; other events are not shown."""
        self._share(event)
        if isinstance(event, ScenarioStarted):
            for text in () if self.quiet else event.warnings:
                self._write(f"{warning_text(text)}\n")
        elif isinstance(event, TrainingStarted):
            self._start(event)
        elif isinstance(event, ShardStored):
            self._stored.add(event.first)
            self._utility = None
            self._latest = {first: at for first, at in self._latest.items() if not event.first <= first <= event.last}
            self._show(0)
        elif isinstance(event, RoundFinished):
            self._latest[event.first] = event
            if event.utility:
                self._utility = event.round, event.utility
            self._show(event.round)
        elif isinstance(event, StageStarted):
            self._stage(event.text)

    def text(self) -> str:
        """The progress of training: the round, with many shards the runs that are in it, and the shards that are
        stored.

        With several shards at once, it is the range of their rounds, and the runs of the shard that is furthest behind.
        """
        training = self._training
        under_way = sorted(self._latest.values(), key=lambda event: event.round)
        rounds = [event.round for event in under_way] or [0]
        text = f"round {' to '.join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))} of {training.rounds}"
        if training.what == "pilot":
            return f"pilot, {text}"
        if training.shards == 1:
            return f"{text}, {count(training.runs, 'run')}"
        stored = f"{len(self._stored)} of {training.shards} shards stored"
        if not under_way:
            return stored if self._stored else f"{stored}, {text}"
        where = ", slowest in" if rounds[0] < rounds[-1] else " in"
        behind = [event for event in under_way if event.round == rounds[0]]
        return f"{stored}, {text}{where} {' and '.join(runs_text(event.first, event.last) for event in behind)}"

    def _start(self, training: TrainingStarted) -> None:
        self.stop()
        self._training, self._stored, self._latest, self._utility = training, set(), {}, None
        self._started = self._last_line = self.clock()
        if training.what == "pilot" or training.shards > 1 or training.stored:
            self._stage(str(training))
        if not self.quiet and self.stream.isatty():
            self._bar = _bar(self.stream)
            self._task = self._bar.add_task(
                "training",
                total=1.0,
                completed=self._share.done,  # type: ignore[arg-type]  # rich takes shares as well
                accuracy="",
                where=self.text(),
            )
            self._bar.start()

    def _utility_text(self, round_number: int) -> str:
        """The last accuracy or loss, with its round unless that is `round_number`; empty before there is one."""
        if self._utility is None:
            return ""
        at, utility = self._utility
        return utility + (f" after round {at}" if at != round_number else "")

    def _show(self, round_number: int) -> None:
        done, accuracy_text = self._share.done, self._utility_text(round_number)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, where=self.text(), accuracy=accuracy_text)  # type: ignore[arg-type]
            return
        now = self.clock()
        if self.quiet or (now - self._last_line < self.every_seconds and done < 1):
            return
        self._last_line = now
        trained = done - self._share.at_start
        seconds_left = (now - self._started) / trained * (1 - done) if trained > 0 else 0.0
        accuracy_text = f", {accuracy_text}" if accuracy_text else ""
        self._write(f"{self.text()}{accuracy_text}, about {_duration(seconds_left)} left\n")

    def _stage(self, text: str) -> None:
        """Something other than training begins."""
        if self._bar is not None:
            self._bar.update(self._task, description=text)  # type: ignore[arg-type]
        elif not self.quiet:
            self._write(f"{text}\n")

    def stop(self) -> None:
        """End the bar; may be called again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(kw_only=True, eq=False)
class ManyRunsProgress(_Output):
    """The progress of many scenarios at once: how many are done, running and failed, and the time left.

    A listener of many scenarios. The time left is that so far, times what is left of all trainings over what is done.
    Failures are shown at once.

    >>> with ManyRunsProgress(quiet=True) as tally:
    ...     tally(ScenariosStarted(total=2, finished=1))
    ...     tally(ScenarioFinished(place=0, folder="runs/tiny/0123"))
    ...     tally.text()
    '2 of 2 done, 0 running, 0 failed'
    """

    _total: int = field(init=False, default=0)
    _finished_before: int = field(init=False, default=0)
    _done: int = field(init=False, default=0)
    _failed: int = field(init=False, default=0)
    _running: dict[int, Share] = field(init=False, default_factory=dict)
    _latest: dict[int, RoundFinished] = field(init=False, default_factory=dict)
    _started: float = field(init=False, default=0.0)
    _last_line: float = field(init=False, default=0.0)
    _open: bool = field(init=False, default=False)
    _warnings: set[str] = field(init=False, default_factory=set)

    def __call__(self, event: Event) -> None:
        """Count scenarios, and what share of those under way is trained; show each warning once."""
        if isinstance(event, ScenariosStarted):
            self._begin(event)
        elif isinstance(event, ScenarioFinished | ScenarioFailed):
            self._end(event)
        elif isinstance(event, ScenarioStarted):
            self._show_warnings(event)
        elif isinstance(event, TrainingStarted | RoundFinished):
            self._running.setdefault(event.place, Share())(event)
            if isinstance(event, RoundFinished):
                self._latest[event.place] = event
            else:
                self._latest.pop(event.place, None)
            self._now_and_then()

    def _begin(self, event: ScenariosStarted) -> None:
        self._total, self._finished_before, self._done, self._failed = event.total, event.finished, event.finished, 0
        self._started = self._last_line = self.clock()
        if event.finished < event.total:
            self._print_line(str(event))
        else:
            finished_before = {0: "", 1: "the one scenario was finished before; "}
            before = f"all {event.total} scenarios were finished before; "
            self._print_line(f"{finished_before.get(event.total, before)}nothing is run")

    def _show_warnings(self, event: ScenarioStarted) -> None:
        for text in event.warnings:
            if text not in self._warnings:
                self._warnings.add(text)
                self._print_line(warning_text(text))

    def _end(self, event: ScenarioFinished | ScenarioFailed) -> None:
        self._running.pop(event.place, None)
        self._latest.pop(event.place, None)
        if isinstance(event, ScenarioFailed):
            self._failed += 1
            self._print_line(f"scenario {event.place + 1} failed: {event.error}")
        else:
            self._done += 1
        self._now_and_then()

    @property
    def num_finished(self) -> int:
        """How many scenarios are finished, now or before."""
        return self._done

    def text(self) -> str:
        """How it stands; without the time left as long as nothing is known of it."""
        running = f"{len(self._running)} running{self._rounds_text()}"
        text = f"{self._done} of {self._total} done, {running}, {self._failed} failed"
        ended = self._done - self._finished_before + self._failed
        work_left = self._total - self._finished_before - ended - sum(share.done for share in self._running.values())
        behind = ended + sum(share.done - share.at_start for share in self._running.values())
        if behind > 0 and work_left > 0:
            text += f", about {_duration((self.clock() - self._started) / behind * work_left)} left"
        return text

    def _rounds_text(self) -> str:
        """The latest rounds of the scenarios under way, of how many; empty before the first round."""
        if not self._latest:
            return ""
        rounds = sorted(event.round for event in self._latest.values())
        totals = sorted(event.rounds for event in self._latest.values())
        at, of = (" to ".join(map(str, dict.fromkeys((values[0], values[-1])))) for values in (rounds, totals))
        return f" (round {at} of {of})"

    def __enter__(self) -> ManyRunsProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._write("\n")

    def _now_and_then(self) -> None:
        now = self.clock()
        ends = self._done + self._failed == self._total
        if self.quiet or (now - self._last_line < (0.2 if self.stream.isatty() else self.every_seconds) and not ends):
            return
        self._last_line = now
        self._print_line(self.text(), stays=ends)

    def _print_line(self, line: str, *, stays: bool = True) -> None:
        """A line; on a terminal one that does not stay is written over by the next."""
        if self.quiet:
            return
        if self.stream.isatty():
            self._write(f"\r\x1b[K{line}" + "\n" * stays)
            self._open = not stays
        else:
            self._write(f"{line}\n")


class _Lasting:
    """A stream that may be gone, as a terminal whose connection was lost: what it cannot take is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As many characters as there are."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _bar(stream: TextIO) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[where]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[accuracy]}"),
        console=Console(file=cast("TextIO", _Lasting(stream))),
    )


def _duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
