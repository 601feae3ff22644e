"""Work in processes forked from this one: their reports arrive here, and none outlives this process.

A fork has all that was built and imported before, so that nothing is built, imported or sent twice. It works in a
thread of its own. The thread that started OpenMP's threads would wait for them, and a fork does not have them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from multiprocessing.reduction import ForkingPickler
from typing import Generic, Protocol, TypeVar

from fedmem.errors import RunError
from fedmem.guards.time_limit import TimeLimitError, escape_by, listen
from fedmem.interrupts import delay_interrupts


class ProcessDied(RunError):
    """A process ended before its work was done; `name` says whose."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


Job = TypeVar("Job")
JobIn = TypeVar("JobIn", contravariant=True)
Progress = TypeVar("Progress")
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)

Report = Callable[[Progress], None]
"""Reports progress from a process."""

Do = Callable[[Job, Report[Progress]], Result]
"""Does one job. Jobs, progress and results are small, since they go through a pipe."""

_DIE_WITH_PARENT = 1
"""Linux, prctl: PR_SET_PDEATHSIG."""


def can_start() -> bool:
    """Whether this process may have others; a daemon of `multiprocessing` must not have any."""
    return not multiprocessing.current_process().daemon


def can_fork() -> bool:
    """Whether forks are safe here: on Linux alone, where they can also be set to end with this process."""
    return sys.platform == "linux" and can_start()


_shared_counts: list[int] = []


def num_processes() -> int:
    """The number of processes that may work at once: as many as are shared, one where none can be forked.

    The process of another program is not forked: its threads may hold locks that a fork would wait for.
    """
    return _shared_counts[-1] if _shared_counts and can_fork() else 1


@contextmanager
def share_processes(count: int) -> Iterator[None]:
    """Says how many `num_processes` there are.

    >>> with share_processes(1):
    ...     num_processes()
    1
    """
    _shared_counts.append(count)
    try:
        yield
    finally:
        _shared_counts.pop()


class WorkerPool(Protocol[JobIn, ResultOut]):
    """Does several jobs, in other processes or in this one."""

    def __enter__(self) -> WorkerPool[JobIn, ResultOut]: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, name: str, job: JobIn) -> None:
        """Begins a job, now or when it is waited for."""
        ...

    def wait_for_one(self) -> tuple[str, ResultOut]:
        """Waits until one of those that were started is done: its name and what it returned, or its exception."""
        ...


class InProcessPool(Generic[Job, Progress, Result]):
    """Does what was started when it is waited for, in this process. `receive` gets the name and each report of a job.

    >>> with InProcessPool(lambda job, report: report("half") or 2 * job, print) as pool:
    ...     pool.start("runs 0 to 3", 7)
    ...     pool.wait_for_one()
    runs 0 to 3 half
    ('runs 0 to 3', 14)
    """

    def __init__(self, do: Do[Job, Progress, Result], receive: Callable[[str, Progress], None]) -> None:
        self._do = do
        self._on_message = receive
        self._started: list[tuple[str, Job]] = []

    def start(self, name: str, job: Job) -> None:
        """Puts it at the end of the line."""
        self._started.append((name, job))

    def wait_for_one(self) -> tuple[str, Result]:
        """Does the first in the line."""
        name, job = self._started.pop(0)
        return name, self._do(job, lambda what: self._on_message(name, what))

    def __enter__(self) -> InProcessPool[Job, Progress, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self._started.clear()


class ForkPool(Generic[Job, Progress, Result]):
    """Does jobs in processes that stay for further ones, so that what one job has built serves the next.

    Guarantees:

    - a job is given to a process that has none. Only where all have one, another is started;
    - an exception comes back with its class and text, and with the trace of its process as a note;
    - a process that dies at work is a `ProcessDied` that names its job, and how it ended. Others go on;
    - when the block ends, for whatever reason, no process is left, and Ctrl-C disturbs neither this nor a start;
    - Ctrl-C reaches this process alone, which ends the others; they also end when it is killed.

    Args:
        do: Does a job; a process has its own copy from when it was started.
        receive: Gets the name of a job and each report of its process.
        first: what each process does before all jobs.
    """

    def __init__(
        self,
        do: Do[Job, Progress, Result],
        receive: Callable[[str, Progress], None],
        first: Callable[[], None] = lambda: None,
    ) -> None:
        assert can_fork()
        self._do = do
        self._on_message = receive
        self._first = first
        self._busy: dict[str, _ForkedWorker] = {}
        self._idle: list[_ForkedWorker] = []

    @property
    def _workers(self) -> list[_ForkedWorker]:
        return [*self._busy.values(), *self._idle]

    def start(self, name: str, job: Job) -> None:
        """Begins at once."""
        if not self._idle:
            self._start_worker()
        self._busy[name] = self._idle.pop(0)
        # one that has died meanwhile will be noticed when it is waited for
        with suppress(BrokenPipeError, ConnectionResetError):
            self._busy[name].pipe.send(job)

    def _start_worker(self) -> None:
        parent_pipe, child_pipe = multiprocessing.Pipe()
        others = [parent_pipe, *(member.pipe for member in self._workers)]
        with delay_interrupts():
            process = fork(partial(_work, self._do, child_pipe), others, self._first)
            self._idle.append(_ForkedWorker(process=process, pipe=parent_pipe))
        child_pipe.close()

    def wait_for_one(self) -> tuple[str, Result]:
        """Passes on the reports of the processes until one of them is done."""
        while True:
            waiting = {member.pipe: name for name, member in self._busy.items()}
            for pipe in wait(list(waiting)):
                assert isinstance(pipe, Connection)
                name = waiting[pipe]
                try:
                    kind, what = pipe.recv()
                except (EOFError, OSError):
                    raise self._death_of(name) from None
                if kind == "report":
                    self._on_message(name, what)
                    continue
                if kind == "late":
                    self._busy.pop(name).pipe.close()
                    raise ProcessDied(name, str(what))
                self._idle.append(self._busy.pop(name))
                if kind == "failed":
                    raise what
                return name, what

    def _death_of(self, name: str) -> ProcessDied:
        member = self._busy.pop(name)
        member.pipe.close()
        process = member.process
        process.join()
        code = process.exitcode or 0
        how = f"was ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with status {code}"
        return ProcessDied(
            name,
            f"the process that trained {name} {how} before it was done. Where memory runs out, systems end processes "
            "with signal 9: train fewer runs at once, with speed.workers=1 or a smaller speed.shard",
        )

    def __enter__(self) -> ForkPool[Job, Progress, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        with delay_interrupts():
            members = self._workers
            for member in members:
                member.process.kill()
            for member in members:
                member.process.join()
                member.pipe.close()
            self._busy.clear()
            self._idle.clear()


@dataclass(frozen=True, kw_only=True)
class _ForkedWorker:
    process: ForkProcess
    pipe: Connection


def fork(
    body: Callable[[], None], others: Sequence[Connection], first: Callable[[], None] = lambda: None
) -> ForkProcess:
    """Starts a process that does this and ends with its parent; Ctrl-C is not for it.

    Args:
        body: What it does, in a thread of its own.
        others: Connections that are not its own, and that it would hold open otherwise.
        first: What it does before.
    """
    process = multiprocessing.get_context("fork").Process(
        target=_run_fork, args=(body, others, os.getpid(), first), daemon=True
    )
    with warnings.catch_warnings():
        # Threads of torch and of the progress bar are there; nothing that a fork uses waits for them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def _run_fork(body: Callable[[], None], others: Sequence[Connection], parent: int, first: Callable[[], None]) -> None:
    """The life of a fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    listen()
    _end_with(parent)
    for other in others:
        other.close()
    first()
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


def _work(do: Do[Job, Progress, Result], pipe: Connection) -> None:
    def send(kind: str, what: object) -> None:
        try:
            pipe.send((kind, what))
        except BrokenPipeError:  # the reader is gone
            os._exit(1)

    def escape(error: TimeLimitError) -> None:
        send("late", error)
        os._exit(1)

    escape_by(escape)
    with suppress(EOFError, ConnectionResetError):
        while True:
            job = pipe.recv()
            try:
                result = do(job, lambda what: send("report", what))
            except BaseException as error:
                send("failed", picklable_error(error))
            else:
                send("done", result)


def _end_with(parent: int) -> None:
    """The kernel ends this process when its parent ends, even if that is killed."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it had ended already
        os._exit(1)


def picklable_error(error: BaseException) -> BaseException:
    """The error as it can be sent, its trace as a note; one that cannot be sent becomes a `RunError` of its text."""
    trace = "".join(traceback.format_exception(error))
    if not isinstance(error, (Exception, KeyboardInterrupt)):
        # an exit of the work is no exit of the process that waits for it
        error = RunError(f"{type(error).__name__}: {error}")
    try:
        copy = ForkingPickler.loads(ForkingPickler.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
    except Exception:
        error = RunError(f"{type(error).__name__}: {error}")
    error.add_note(f"In the process that did it:\n{trace}")
    return error


_NEVER = 1 << 30
"""Bytes that no block has."""

_THRESHOLDS = {-1: "MALLOC_TRIM_THRESHOLD_", -3: "MALLOC_MMAP_THRESHOLD_"}
"""Parameters of `mallopt` in the C library, and the variable that sets each when a process starts."""

_DEFAULT_THRESHOLD = 128 << 10
"""Bytes: what glibc has for both where no variable is set."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def hold_on_to_memory() -> Iterator[None]:
    """Let this process keep its freed memory for its next needs, until the block ends.

    By default the C library of Linux gives large blocks back at once and asks for them again. Every layer of every step
    then waits for pages to be mapped, up to six times the time of a forward pass. On other systems nothing is done.

    The thresholds cannot be read. At the end they are those that glibc starts with; it no longer adjusts them itself.
    """
    set_threshold = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_threshold is None:
        yield
        return
    for parameter in _THRESHOLDS:
        set_threshold(parameter, _NEVER)
    try:
        yield
    finally:
        for parameter, variable in _THRESHOLDS.items():
            start = os.environ.get(variable, "")
            set_threshold(parameter, int(start) if start.isdecimal() else _DEFAULT_THRESHOLD)
