"""What a run tells while it goes on: rounds, runs, time left and the live accuracy of the global models."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Progress:
    """A bar on a terminal, a plain line every few seconds elsewhere, nothing if `quiet`; always on standard error.

    The time left is the time per round so far, times the rounds to come. Used as a context manager, it leaves the
    terminal in order whatever happens inside.

    >>> with Progress(quiet=True) as progress:
    ...     progress.start(rounds=2, runs=4)
    ...     progress.update(1, accuracy=0.5)
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._every_seconds = every_seconds
        self._clock = clock
        self._rounds = self._runs = 0
        self._started = self._last_line = 0.0
        self._bar: Bar | None = None
        self._task: int = 0

    def start(self, rounds: int, runs: int) -> None:
        """Training begins."""
        self.stop()
        self._rounds, self._runs = rounds, runs
        self._started = self._last_line = self._clock()
        if not self._quiet and self._stream.isatty():
            self._bar = _bar(self._stream)
            self._task = self._bar.add_task("training", total=rounds, accuracy="", runs=_runs(runs))
            self._bar.start()

    def update(self, round: int, accuracy: float | None) -> None:
        """A round is over in all runs; the accuracy is that of the global models on the test set, None if not seen."""
        if self._bar is not None:
            fields = {} if accuracy is None else {"accuracy": f"global accuracy {accuracy:.3f}"}
            self._bar.update(self._task, completed=round, **fields)  # type: ignore[arg-type]
            return
        now = self._clock()
        if self._quiet or (now - self._last_line < self._every_seconds and round < self._rounds):
            return
        self._last_line = now
        left = (now - self._started) / max(round, 1) * (self._rounds - round)
        seen = "" if accuracy is None else f", global accuracy {accuracy:.3f}"
        self._line(f"round {round}/{self._rounds}, {_runs(self._runs)}{seen}, about {_duration(left)} left")

    def stage(self, text: str) -> None:
        """Something other than training begins."""
        if self._bar is not None:
            self._bar.update(self._task, description=text)  # type: ignore[arg-type]
        elif not self._quiet:
            self._line(text)

    def stop(self) -> None:
        """Nothing more to tell; may be called again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _line(self, text: str) -> None:
        with suppress(OSError):  # a full disk behind standard error is no reason to stop training
            self._stream.write(f"{text}\n")
            self._stream.flush()


class Tallying:
    """The same for many runs at once: how many are done, running and failed, and the time left.

    The time left is that so far, times what is left of all rounds over what is behind. Failures are told as they come.

    >>> with Tallying(quiet=True) as tally:
    ...     tally.begin(total=2, there=1)
    ...     tally.going(0, 0.5)
    ...     tally.ended(0, None)
    ...     tally.text()
    '2 of 2 done, 0 running, 0 failed'
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._every_seconds = every_seconds
        self._clock = clock
        self._total = self._there = self._done = self._failed = 0
        self._running: dict[int, float] = {}
        self._started = self._last = 0.0
        self._open = False

    def begin(self, total: int, there: int) -> None:
        """See `company.Tally`."""
        self._total, self._there, self._done, self._failed = total, there, there, 0
        self._started = self._last = self._clock()
        if there < total:
            self._tell(f"{_runs(total)}, {there} of them there already" if there else _runs(total))

    def going(self, place: int, share: float) -> None:
        """See `company.Tally`."""
        self._running[place] = share
        self._now_and_then()

    def ended(self, place: int, error: Exception | None) -> None:
        """See `company.Tally`."""
        self._running.pop(place, None)
        if error is None:
            self._done += 1
        else:
            self._failed += 1
            self._tell(f"run {place + 1} failed: {error}")
        self._now_and_then()

    def text(self) -> str:
        """How it stands; without the time left as long as nothing is known of it."""
        said = f"{self._done} of {self._total} done, {len(self._running)} running, {self._failed} failed"
        behind = self._done - self._there + self._failed + sum(self._running.values())
        left = self._total - self._there - behind
        if behind > 0 and left > 0:
            said += f", about {_duration((self._clock() - self._started) / behind * left)} left"
        return said

    def __enter__(self) -> Tallying:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._write("\n")

    def _now_and_then(self) -> None:
        now = self._clock()
        ends = self._done + self._failed == self._total
        if self._quiet or (now - self._last < (0.2 if self._stream.isatty() else self._every_seconds) and not ends):
            return
        self._last = now
        self._tell(self.text(), stays=ends)

    def _tell(self, line: str, *, stays: bool = True) -> None:
        """A line; on a terminal one that does not stay is written over by the next."""
        if self._quiet:
            return
        if self._stream.isatty():
            self._write(f"\r\x1b[K{line}" + "\n" * stays)
            self._open = not stays
        else:
            self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def _bar(stream: TextIO) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("round"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[runs]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[accuracy]}"),
        console=Console(file=stream),
    )


def _runs(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
