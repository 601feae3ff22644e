"""Workers in processes of this machine that are started afresh: for systems on which none can be forked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fedmem.execution.backends._work import Worker
from fedmem.execution.backends.contract import MAX_ATTEMPTS, Setup
from fedmem.processes import ProcessDied, cores

POLL_SECONDS = 0.02
"""How often reports are looked for."""

PARENT_SECONDS = 0.5
"""How often a worker looks whether the process that asks is still there."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """As many processes as this one has cores, by loky."""

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return "processes"

    def joined_name(self) -> str:
        """See `Backend.joined_name`."""
        return self.name

    @contextmanager
    def connect(self) -> Iterator[None]:
        """See `Backend.connect`."""
        yield

    def num_workers(self, threads: int, *, gpu: bool) -> int:
        """See `Backend.num_workers`."""
        return 1 if gpu else max(1, cores() // threads)

    def card(self) -> str | None:
        """See `Backend.card`: that of this machine."""
        from fedmem.execution.devices import card_of

        return card_of("cuda")

    def pool(
        self,
        setup: Setup[Any, Any, Any],
        receive: Callable[[str, Any], None],
        *,
        workers: int,
        threads: int,
        gpu: bool,
    ) -> ProcessPool:
        """See `Backend.pool`."""
        return ProcessPool(setup, receive, workers)


@dataclass(frozen=True, kw_only=True)
class _Begun:
    name: str
    job: Any
    attempt: int


class ProcessPool:
    """Does jobs in processes that stay for further ones; see `Backend`."""

    def __init__(self, setup: Setup[Any, Any, Any], receive: Callable[[str, Any], None], workers: int) -> None:
        self._setup = setup
        self._receive = receive
        self._count = workers
        self._jobs: dict[Future[Any], _Begun] = {}

    def __enter__(self) -> ProcessPool:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=True, kill_workers=bool(self._jobs))

    def _open(self) -> None:
        from loky import ProcessPoolExecutor, backend

        context = backend.get_context("loky")
        self._reports = context.SimpleQueue()
        self._executor = ProcessPoolExecutor(
            self._count, context=context, initializer=_prepare, initargs=(self._setup, self._reports, os.getpid())
        )

    def start(self, name: str, job: Any) -> None:
        """See `WorkerPool.start`."""
        self._submit(_Begun(name=name, job=job, attempt=1))

    def _submit(self, begun: _Begun) -> None:
        self._jobs[self._executor.submit(_do, begun.name, begun.job)] = begun

    def wait_for_one(self) -> tuple[str, Any]:
        """See `WorkerPool.wait_for_one`. Errors: those of the work; `ProcessDied`."""
        while True:
            self._pass_on_reports()
            done = next((future for future in self._jobs if future.done()), None)
            if done is None:
                time.sleep(POLL_SECONDS)
                continue
            try:
                kind, what = done.result()
            except BrokenProcessPool as error:
                self._start_again(error)
                continue
            self._pass_on_reports()
            begun = self._jobs.pop(done)
            if kind == "late":
                raise ProcessDied(begun.name, str(what))
            if kind == "failed":
                raise what
            return begun.name, what

    def _pass_on_reports(self) -> None:
        while not self._reports.empty():
            name, what = self._reports.get()
            if any(begun.name == name for begun in self._jobs.values()):
                self._receive(name, what)

    def _start_again(self, error: BrokenProcessPool) -> None:
        """New processes, and all jobs that were under way: nobody knows whose process it was that died."""
        lost = list(self._jobs.values())
        self._jobs.clear()
        self._executor.shutdown(wait=True, kill_workers=True)
        for begun in lost:
            if begun.attempt == MAX_ATTEMPTS:
                raise ProcessDied(
                    begun.name,
                    f"{begun.name} was tried {MAX_ATTEMPTS} times, and each time a process died: {error}. Where memory "
                    "runs out, systems end processes: train fewer runs at once, with a smaller speed.shard",
                ) from error
        self._open()
        for begun in lost:
            self._submit(_Begun(name=begun.name, job=begun.job, attempt=begun.attempt + 1))


_worker: list[tuple[Worker, Any]] = []
"""The worker of this process, and where its reports go."""


def _prepare(setup: Setup[Any, Any, Any], reports: Any, parent: int) -> None:
    """Ctrl-C is for the process that asks, which then ends the others; they also end when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker[:] = [(Worker(setup), reports)]


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent has ended. On Windows the number of a parent stays."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _do(name: str, job: Any) -> tuple[str, Any]:
    """The last message of a job."""
    worker, reports = _worker[0]
    for kind, what in worker.work(job):
        if kind != "report":
            return kind, what
        reports.put((name, what))
    raise AssertionError("a job ends with a message")
