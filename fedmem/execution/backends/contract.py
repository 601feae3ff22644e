"""Backends: what those who share out work ask of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from fedmem.processes import Do, Job, Progress, Result, WorkerPool

Setup = Callable[[], Do[Job, Progress, Result]]
"""Prepares a worker, once, and gives what does its jobs. It is sent to the worker, so that it can be pickled."""

MAX_ATTEMPTS = 4
"""How often a job is tried whose worker dies each time."""


class Backend(Protocol):
    """Workers that share neither memory nor files with this process.

    Guarantees of a pool:

    - an error of the work comes back with its class and text, and the job is not repeated;
    - a job whose worker or node is lost is given to another worker, `MAX_ATTEMPTS` times in all. `ProcessDied` names
      the job after the last one;
    - when the block of the pool ends, for whatever reason, its workers end.
    """

    @property
    def name(self) -> str:
        """As `backend_of` reads it."""
        ...

    def joined_name(self) -> str:
        """The name by which other processes reach what is connected."""
        ...

    def connect(self) -> AbstractContextManager[None]:
        """Whatever pools and `num_workers` need; it ends with the block."""
        ...

    def num_workers(self, threads: int, *, gpu: bool) -> int:
        """How many workers of so many threads, and a GPU each if `gpu`, may work at once."""
        ...

    def card(self) -> str | None:
        """The name of the GPU of a worker; None where no worker has one that its torch finds."""
        ...

    def pool(
        self,
        setup: Setup[Any, Any, Any],
        receive: Callable[[str, Any], None],
        *,
        workers: int,
        threads: int,
        gpu: bool,
    ) -> AbstractContextManager[WorkerPool[Any, Any]]:
        """A pool of so many workers; `receive` gets the name of a job and each of its reports."""
        ...
