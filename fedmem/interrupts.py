"""Ctrl-C: handled once, never in the middle of what has to be finished, and without a traceback."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PATIENCE_SECONDS = 3.0
"""How long another Ctrl-C is taken for the one before it, while things are put in order."""

_received = [-math.inf]
"""When Ctrl-C was last handled."""


def handle_interrupt(number: int, frame: object) -> None:
    """A handler of SIGINT; pressed again at once it asks for nothing new, and must not disturb what is under way."""
    now = time.monotonic()
    if now - _received[-1] > PATIENCE_SECONDS:
        _received[-1] = now
        raise KeyboardInterrupt


def end_with_terminal() -> None:
    """A terminal that goes away, as a lost connection does, is Ctrl-C; under `nohup` it stays without effect."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGINT))


_abandoned: list[bool] = []
"""Whether threads were left behind."""


def abandon_threads() -> None:
    """Threads of this process wait for what may never come, so that the program has to end without them."""
    _abandoned[:] = [True]


def end_at_once(code: object) -> None:
    """Ends this process where it has left threads behind, which the end of the interpreter would disturb."""
    if _abandoned:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def leave() -> None:
    """The program has ended: what libraries still do is not interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interruptible(*harmless: type[Exception]) -> Iterator[None]:
    """Ctrl-C is Ctrl-C, also where a library that was just being imported made another error of it.

    Errors that are `harmless` pass as they are.
    """
    if not _can_handle_signals():
        yield
        return
    pressed = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal pressed
        pressed = True
        handle_interrupt(number, frame)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    except Exception as error:
        if pressed and not isinstance(error, harmless):
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def delay_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the block is over."""
    if not _can_handle_signals():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def _can_handle_signals() -> bool:
    """Only the main thread receives signals; a handler that is not of Python could not be put back."""
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGINT) is not None
