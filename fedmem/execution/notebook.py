"""Progress in a notebook: one line with a bar, which each event replaces."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmem.contracts.events import (
    Event,
    Listener,
    ReadingsTaken,
    RoundFinished,
    ScenarioFailed,
    ScenarioFinished,
    ScenariosStarted,
    Share,
)

_SECONDS = 0.2
"""The least time between two updates in the same training."""

_SHELL = "ZMQInteractiveShell"
"""The class of IPython shells whose output is a notebook."""


def notebook_listeners() -> Sequence[Listener]:
    """The progress, where this code runs in a notebook; nothing elsewhere.

    >>> notebook_listeners()
    ()
    """
    if "IPython" not in sys.modules:
        return ()
    from IPython.core.getipython import get_ipython

    is_notebook = any(cls.__name__ == _SHELL for cls in type(get_ipython()).__mro__)
    return (NotebookProgress(show=_display()),) if is_notebook else ()


@dataclass(kw_only=True, eq=False)
class NotebookProgress:
    """A listener that shows a bar with the last event, for one scenario or for many.

    Attributes:
        show: is called with the same content as text and as HTML.
        clock: tells the time in seconds.

    Examples:
        >>> from fedmem.contracts.events import TrainingStarted
        >>> progress = NotebookProgress(show=lambda text, page: print(text))
        >>> progress(TrainingStarted(rounds=2, runs=4))
        0 %: training 4 runs
        >>> progress(RoundFinished(round=2, rounds=2, first=0, last=3, accuracy=0.5))
        100 %: round 2 of 2 in runs 0 to 3, global accuracy 0.500
    """

    show: Callable[[str, str], None]
    clock: Callable[[], float] = time.monotonic
    _total: int = field(init=False, default=1)
    _ended: int = field(init=False, default=0)
    _shares: dict[int, Share] = field(init=False, default_factory=dict)
    _last: float = field(init=False, default=float("-inf"))

    def __call__(self, event: Event) -> None:
        """Show where the training is."""
        if isinstance(event, ReadingsTaken):
            return
        if isinstance(event, ScenariosStarted):
            self._total, self._ended = event.total, event.finished
        elif isinstance(event, ScenarioFinished | ScenarioFailed):
            self._shares.pop(event.place, None)
            self._ended += 1
        else:
            self._shares.setdefault(event.place, Share())(event)
        now = self.clock()
        if isinstance(event, RoundFinished) and now - self._last < _SECONDS and event.round < event.rounds:
            return
        self._last = now
        done = self._ended + sum(share.done for share in self._shares.values())
        share = min(done / self._total, 1.0) if self._total else 1.0
        several = f"{self._ended} of {self._total} scenarios, " if self._total > 1 else ""
        text = f"{several}{100 * share:.0f} %: {event}"
        self.show(text, f'<progress value="{share:.3f}" max="1"></progress> {html.escape(text)}')


def _display() -> Callable[[str, str], None]:
    """Shows content in the output of this cell, in the place of what it showed before."""
    from IPython.display import DisplayHandle

    handle, is_shown = DisplayHandle(), False  # type: ignore[no-untyped-call]

    def show(text: str, page: str) -> None:
        nonlocal is_shown
        content: dict[str, Any] = {"text/plain": text, "text/html": page}
        if is_shown:
            handle.update(content, raw=True)  # type: ignore[no-untyped-call]
        else:
            handle.display(content, raw=True)  # type: ignore[no-untyped-call]
        is_shown = True

    return show
