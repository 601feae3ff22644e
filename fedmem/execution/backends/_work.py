"""The side of a worker: it prepares itself once, and tells of each job how it goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from fedmem.execution.backends.contract import Setup
from fedmem.guards.time_limit import TimeLimitError, escape_by, listen
from fedmem.processes import Do, picklable_error

Message = tuple[str, Any]
"""`report` and what is reported, or last of all `done` and the result, `failed` and the error, `late` and the error."""

LAST = ("done", "failed", "late")
"""The messages after which none follows. After `late` the worker still hangs in its work, and has to be ended."""


class Worker:
    """Does one job after the other, each in a thread of its own, so that its reports can be passed on meanwhile."""

    def __init__(self, setup: Setup[Any, Any, Any]) -> None:
        self._setup = setup
        self._do: Do[Any, Any, Any] | None = None

    def work(self, job: Any) -> Iterator[Message]:
        """The messages of a job, as they come."""
        messages: SimpleQueue[Message] = SimpleQueue()
        if threading.current_thread() is threading.main_thread():
            listen()

        def escape(error: TimeLimitError) -> None:
            messages.put(("late", error))

        escape_by(escape)
        threading.Thread(target=self._work, args=(job, messages), daemon=True).start()
        while True:
            message = messages.get()
            yield message
            if message[0] in LAST:
                return

    def close(self) -> None:
        """Let go of what the setup made, such as files."""
        self._do = None

    def _work(self, job: Any, messages: SimpleQueue[Message]) -> None:
        try:
            if self._do is None:
                self._do = self._setup()
            result = self._do(job, lambda what: messages.put(("report", what)))
        except BaseException as error:
            messages.put(("failed", picklable_error(error)))
        else:
            messages.put(("done", result))
