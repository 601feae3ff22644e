"""Workers on the nodes of a Ray cluster: of this machine, or of one that is named by its address."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from fedmem.errors import ComponentError, RunError
from fedmem.execution.backends._work import LAST, Worker
from fedmem.execution.backends.contract import MAX_ATTEMPTS, Setup
from fedmem.interrupts import abandon_threads
from fedmem.processes import ProcessDied

QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
"""Ray reports to nobody, and leaves the environment as it is. Workers have the priority of this process."""

CLOSE_SECONDS = 5.0
"""How long idle workers may take to remove their files."""

CARD_SECONDS = 120.0
"""How long a node with a free GPU is waited for, to learn which GPU it is."""

WAIT_SECONDS = 1.0
"""How often nodes are looked at while nothing arrives."""

Answer = TypeVar("Answer")

HEAD_SECONDS = 30.0
"""How long the head of a cluster may take to answer. A network that is back by then costs nothing."""


@dataclass(frozen=True, kw_only=True)
class Ray:
    """A cluster, with the address of its head, or without one that of this machine, which is started if there is none.

    Errors: `ComponentError` where Ray is not installed.
    """

    address: str | None = None

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise ComponentError(
                "on", "ray is not installed; install it with: pip install 'fedmem[flower]', or use forks"
            )

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return "ray" if self.address is None else f"ray:{self.address}"

    def joined_name(self) -> str:
        """See `Backend.joined_name`."""
        ray = _ray()
        return f"ray:{ray.get_runtime_context().gcs_address}"

    @contextmanager
    def connect(self) -> Iterator[None]:
        """See `Backend.connect`. A connection that is there already is used, and stays.

        The environment and what SIGTERM does are put back afterwards. Errors: `RunError` where nothing answers.
        """
        if self.address is not None:
            _probe(self.address)
        with _quiet():
            ray = _ray()
            if ray.is_initialized():
                yield
                return
            try:
                ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
            except Exception as error:
                raise RunError(f"{self.name} does not answer: {error}. Start it with: ray start --head") from error
            try:
                yield
            finally:
                _shut_down()

    def num_workers(self, threads: int, *, gpu: bool) -> int:
        """See `Backend.num_workers`. Errors: `RunError` where no node has room for one."""
        ray = _ray()
        nodes = [node["Resources"] for node in _answer(ray.nodes) if node["Alive"]]
        rooms = [min(int(node.get("CPU", 0)) // threads, int(node.get("GPU", 0)) if gpu else 1 << 30) for node in nodes]
        if not sum(rooms):
            needs = f"{threads} free cores" + " and a GPU" * gpu
            raise RunError(f"none of the {len(nodes)} nodes of {self.name} has {needs}; lower speed.threads")
        return sum(rooms)

    def card(self) -> str | None:
        """See `Backend.card`: a node that has a GPU says which. Errors: `RunError` where no such node answers."""
        ray = _ray()
        if not any(node["Resources"].get("GPU", 0) >= 1 for node in ray.nodes() if node["Alive"]):
            return None
        asked = ray.remote(num_cpus=0, num_gpus=1)(_card_of_worker).remote()
        try:
            name: str | None = ray.get(asked, timeout=CARD_SECONDS)
        except ray.exceptions.RayError as error:
            ray.cancel(asked, force=True)
            raise RunError(
                f"no node of {self.name} says within {CARD_SECONDS:g} s which GPU it has ({type(error).__name__}); "
                "wait until one is free, or use speed.device: cpu"
            ) from error
        return name

    def pool(
        self,
        setup: Setup[Any, Any, Any],
        receive: Callable[[str, Any], None],
        *,
        workers: int,
        threads: int,
        gpu: bool,
    ) -> RayPool:
        """See `Backend.pool`."""
        return RayPool(setup, receive, workers=workers, threads=threads, gpu=gpu)


@dataclass(kw_only=True)
class _Busy:
    """A job and the actor that does it."""

    name: str
    job: Any
    attempt: int
    actor: Any
    messages: Any


class RayPool:
    """Does jobs in actors that stay for further ones, each with the cores that it needs; see `Backend`."""

    def __init__(
        self,
        setup: Setup[Any, Any, Any],
        receive: Callable[[str, Any], None],
        *,
        workers: int,
        threads: int,
        gpu: bool,
    ) -> None:
        self._setup = setup
        self._receive = receive
        self._count = workers
        self._resources = {"num_cpus": threads, **({"num_gpus": 1} if gpu else {})}
        self._busy: list[_Busy] = []
        self._idle: list[Any] = []
        self._waiting: list[tuple[str, Any, int]] = []
        self._sent: Any = None

    def __enter__(self) -> RayPool:
        ray = _ray()
        self._sent = ray.put(self._setup)
        return self

    def __exit__(self, *_: object) -> None:
        ray = _ray()
        with suppress(ray.exceptions.RayError):
            ray.get([actor.close.remote() for actor in self._idle], timeout=CLOSE_SECONDS)
        with suppress(LostHead):  # which ends the workers itself, as soon as it misses this process
            for actor in [*self._idle, *(busy.actor for busy in self._busy)]:
                _end(actor)
        self._idle, self._busy, self._waiting = [], [], []

    def start(self, name: str, job: Any) -> None:
        """See `WorkerPool.start`."""
        self._waiting.append((name, job, 1))
        self._give()

    def wait_for_one(self) -> tuple[str, Any]:
        """See `WorkerPool.wait_for_one`. Errors: those of the work; `ProcessDied`."""
        ray = _ray()
        while True:
            self._give()
            by_stream = {busy.messages: busy for busy in self._busy}
            ready, _ = ray.wait(list(by_stream), num_returns=1, timeout=WAIT_SECONDS, fetch_local=True)
            if not ready:
                _answer(ray.nodes)
            for messages in ready:
                busy = by_stream[messages]
                try:
                    kind, what = ray.get(next(messages))
                except (ray.exceptions.RayError, StopIteration) as error:
                    self._retry(busy, error)
                    continue
                if kind == "report":
                    self._receive(busy.name, what)
                    continue
                assert kind in LAST
                self._busy.remove(busy)
                if kind == "late":
                    _end(busy.actor)
                    raise ProcessDied(busy.name, str(what))
                self._idle.append(busy.actor)
                if kind == "failed":
                    raise what
                return busy.name, what

    def _give(self) -> None:
        """Give what waits to actors: to idle ones, and to new ones as long as there are fewer than there may be."""
        while self._waiting and (self._idle or self._may_start()):
            name, job, attempt = self._waiting.pop(0)
            actor = self._idle.pop(0) if self._idle else self._start_actor()
            messages = actor.work.remote(job)
            self._busy.append(_Busy(name=name, job=job, attempt=attempt, actor=actor, messages=messages))

    def _may_start(self) -> bool:
        """Whether a further actor would find room: one that waits for that would keep its job from others."""
        ray = _ray()
        if len(self._busy) >= self._count:
            return False
        free = _answer(ray.available_resources)
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        has_room = all(free.get(names[name], 0) >= count for name, count in self._resources.items())
        return has_room or not self._busy

    def _start_actor(self) -> Any:
        ray = _ray()
        actor: Any = ray.remote(_Actor)
        options = actor.options(
            **self._resources, max_restarts=0, max_task_retries=0, max_concurrency=1, scheduling_strategy="SPREAD"
        )
        return options.remote(self._sent)

    def _retry(self, busy: _Busy, error: BaseException) -> None:
        """Give a job whose actor is lost to another one."""
        self._busy.remove(busy)
        _end(busy.actor)
        if busy.attempt == MAX_ATTEMPTS:
            why = str(error).strip().splitlines()
            raise ProcessDied(
                busy.name,
                f"{busy.name} was tried {MAX_ATTEMPTS} times, and each time its worker was lost, last of all: "
                f"{why[0] if why else type(error).__name__}. Where memory runs out, Ray ends workers: train fewer runs "
                "at once, with a smaller speed.shard",
            ) from error
        self._waiting.insert(0, (busy.name, busy.job, busy.attempt + 1))


def _card_of_worker() -> str | None:
    from fedmem.execution.devices import card_of

    return card_of("cuda")


class _Actor(Worker):
    """A worker on a node."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Variables of `QUIET` where they are not set; they and SIGTERM, which Ray handles as well, are put back."""
    added = [name for name in QUIET if name not in os.environ]
    os.environ.update({name: QUIET[name] for name in added})
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        if is_main and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _ray() -> Any:
    """The library, which is imported where it is used."""
    import ray

    return ray


def _end(actor: Any) -> None:
    ray = _ray()
    _answer(lambda: ray.kill(actor, no_restart=True))


class LostHead(RunError):
    """The head of the cluster does not answer."""


_lost: list[LostHead] = []
"""That the head of the connected cluster has not answered; it is not asked again."""


def _answer(question: Callable[[], Answer]) -> Answer:
    """The answer of the head, for which Ray itself may wait without end.

    Errors: `LostHead` where it takes longer than `HEAD_SECONDS`.
    """
    if _lost:
        raise _lost[0]
    answers: SimpleQueue[tuple[Answer | None, BaseException | None]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put((question(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer, error = answers.get(timeout=HEAD_SECONDS)
    except Empty:
        _lost.append(
            LostHead(
                f"the head of the Ray cluster has not answered for {HEAD_SECONDS:.0f} s: it or the network is down. "
                "Finished shards are kept; when it answers again, or with another --on, the same command continues"
            )
        )
        raise _lost[0] from None
    if error is not None:
        raise error
    return cast("Answer", answer)


def _shut_down() -> None:
    """Disconnect; where the head does not answer, leave the connection to the end of this process."""
    ray = _ray()
    try:
        _answer(ray.shutdown)
    except LostHead:
        atexit.unregister(ray.shutdown)
        abandon_threads()
    _lost.clear()


def _probe(address: str) -> None:
    """Errors: `RunError` where nobody listens. Ray itself would wait for minutes."""
    import socket

    if "://" in address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host or address, int(port)), timeout=5.0).close()
    except (OSError, ValueError) as error:
        raise RunError(
            f"no cluster of Ray answers at {address} ({error}). Give the address that `ray start --head` prints, such "
            "as 10.0.0.7:6379"
        ) from error
