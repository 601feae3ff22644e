"""A limit on the time that the steps of one client may take, so that endless work ends with a message.

Between two steps the clock is compared. A single step that hangs is stopped by an alarm. In the main thread of a
process, it interrupts Python code and sleeping. A process that was forked for the work runs it in another thread; the
process reports what hung and ends. Native code that never returns to Python cannot be stopped.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from fedmem.guards.guarding import PartError, line_in

AGAIN_SECONDS = 1.0
"""After how long an alarm rings again, where somebody's code has caught the first."""


class TimeLimitError(PartError):
    """A client took longer than it may; the run ends, since results must not depend on the clock."""


class _Alarm(BaseException):
    """Raised in whatever the main thread does; no `except Exception` catches it."""


Escape = Callable[[TimeLimitError], None]
"""Tells who waits for this process that it is late, and ends it."""

_escape: list[Escape] = []
_clocks: list[Clock] = []


class Clock:
    """A block in which a client, or a stack of some, does its steps.

    Args:
        seconds: How long it may take; with infinity nothing is done.
        name: Family and kind of the client.
        count: How many clients share the time: each adds `seconds`.

    Errors: `TimeLimitError`.

    >>> with Clock(10.0, "client sgd") as clock:
    ...     clock.check()
    """

    __slots__ = ("_before", "_end", "_name", "_rung", "_seconds", "_thread")

    def __init__(self, seconds: float, name: str, count: int = 1) -> None:
        self._seconds = seconds * count
        self._name = name
        self._end = math.inf
        self._before: Any = None
        self._thread = 0
        self._rung: FrameType | None = None

    def __enter__(self) -> Clock:
        if math.isinf(self._seconds):
            return self
        self._end = time.monotonic() + self._seconds
        self._thread = threading.get_ident()
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
            self._before = signal.signal(signal.SIGALRM, self._on_alarm)
            signal.setitimer(signal.ITIMER_REAL, self._seconds, AGAIN_SECONDS)
        elif _escape:
            _clocks.append(self)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def check(self) -> None:
        """Between two steps."""
        if time.monotonic() > self._end:
            raise self._error("")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if math.isinf(self._seconds):
            return
        if self._before is not None or self in _clocks:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._before is not None:
            signal.signal(signal.SIGALRM, self._before)
        elif self in _clocks:
            _clocks.remove(self)
        if isinstance(error, _Alarm):
            raise self._error(line_in(traceback.walk_tb(trace))) from error

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        raise _Alarm

    def _error(self, at: str) -> TimeLimitError:
        return TimeLimitError(
            self._name,
            "its steps",
            f"they took longer than {self._seconds:g} s. Raise speed.seconds_per_client if they need more, or do less "
            "in a step",
            at=at,
        )

    def limit_error(self) -> TimeLimitError:
        """The error, with the line at which the thread of this clock is now."""
        frame = sys._current_frames().get(self._thread)
        return self._error(line_in(reversed(list(traceback.walk_stack(frame)))) if frame is not None else "")


def listen() -> None:
    """In the main thread of a process that works in another thread: receive the alarm of clocks there."""
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _on_signal)


def escape_by(escape: Escape) -> None:
    """How a process that `listen`s ends when a client in it is late."""
    _escape[:] = [escape]


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _clocks and _escape:
        _escape[0](_clocks[-1].limit_error())
