"""The only file that touches what is private in Flower: message identity, messages that stay in the process, and the
parts of its simulation runtime."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

# read by Flower when it is imported: a simulation reports to nobody
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message.recorddict import _SyncedDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedmem.errors import ComponentError, RunError
from fedmem.federation.roster import FIRST_NODE as FIRST_NODE
from fedmem.observation.observed import TRACE

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def in_process() -> Iterator[None]:
    """Lets `Message(...)` be built outside of Flower's runtime, and quiets Flower's logger to errors.

    Some strategies collect garbage once for every reply, which goes through all objects that there are, torch's own
    included. What exists already is therefore set aside from collection until the end. Within another such block
    nothing is done, so that banks that go on in step, and end out of order, are in one block around all of them.
    """
    if getattr(vars(ArrayRecord)["from_array_dict"], "__func__", None) is _from_arrays:
        yield
        return
    identity = {name: getattr(TaskIdentity, name) for name in ("_task_id", "_run_id", "_node_id")}
    authors = _modules_that_make_arrays()
    logger = logging.getLogger("flwr")
    level = logger.level
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    logger.setLevel(logging.ERROR)
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)  # messages come by the thousand, and die by themselves
    for module in authors:
        module.Array = _Unserialised
    known: Any = ArrayRecord
    from_array_dict = vars(ArrayRecord)["from_array_dict"]
    known.from_array_dict = staticmethod(_from_arrays)
    try:
        yield
    finally:
        known.from_array_dict = from_array_dict
        for module in authors:
            module.Array = Array
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        logger.setLevel(level)
        for name, value in identity.items():
            setattr(TaskIdentity, name, value)


@cache
def _name(dtype: np.dtype[Any]) -> str:
    return str(dtype)


class LocalArray(Array):
    """An `Array` that keeps its ndarray and serialises only when somebody asks for bytes.

    `numpy()` gives a fresh copy each time, as the serialised form does, so that nobody can change a message in place.
    """

    def __init__(self, ndarray: NDArray[Any]) -> None:
        self.__dict__.update(_ndarray=ndarray, dtype=_name(ndarray.dtype), shape=ndarray.shape, stype="numpy.ndarray")

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes that an ordinary `Array` would hold."""
        buffer = BytesIO()
        np.save(buffer, self.__dict__["_ndarray"], allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """A copy of the array."""
        return np.array(self.__dict__["_ndarray"])


class _Unserialised:
    """Stands for `Array` in the modules of strategies: what they aggregate stays in the process as well."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """A copy, since a strategy may go on with its array; anything but one ndarray is left to Flower."""
        if len(arguments) == 1 and not named and isinstance(arguments[0], np.ndarray):
            return LocalArray(arguments[0].copy())
        return Array(*arguments, **named)


def _from_arrays(array_dict: dict[str, Array], *, keep_input: bool = True) -> ArrayRecord:
    """`ArrayRecord.from_array_dict`, which copies every `Array` by way of its bytes; those of this process stay."""
    record = ArrayRecord()
    for name, array in array_dict.items():
        own = isinstance(array, LocalArray)
        record[name] = array if own else Array(array.dtype, tuple(array.shape), array.stype, array.data)
    if not keep_input:
        array_dict.clear()
    return record


def _modules_that_make_arrays() -> list[Any]:
    """The modules of Flower's strategies and of ours that know `Array` by name."""
    names = [name for name in sys.modules if name.startswith(("flwr.serverapp.strategy.", "strategies."))]
    return [sys.modules[name] for name in names if getattr(sys.modules[name], "Array", None) is Array]


class LocalContent(RecordDict):
    """A `RecordDict` whose records are known to be of the right types.

    Flower makes a view anew each time that records of one type are asked for, and checks every record in it once more,
    which costs more than training a small model. Here the same view is made without the checks, and kept until a record
    is put in or taken out.
    """

    def __init__(self, records: Mapping[str, ArrayRecord | MetricRecord | ConfigRecord]) -> None:
        super().__init__()
        self.__dict__["_data"].update(records)
        self.__dict__["_views"] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.__dict__["_views"].clear()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.__dict__["_views"].clear()

    def _view(self, kind: Any) -> Any:
        views: dict[Any, Any] = self.__dict__["_views"]
        if kind not in views:
            # without a reference back, so that nothing has to wait for the garbage collector
            view: Any = _SyncedDict(weakref.proxy(self), kind)
            data = self.__dict__["_data"]
            view.__dict__["_data"].update({name: record for name, record in data.items() if isinstance(record, kind)})
            views[kind] = view
        return views[kind]

    @property
    def array_records(self) -> Any:
        """The records that hold arrays."""
        return self._view(ArrayRecord)

    @property
    def metric_records(self) -> Any:
        """The records that hold metrics."""
        return self._view(MetricRecord)

    @property
    def config_records(self) -> Any:
        """The records that hold settings."""
        return self._view(ConfigRecord)


def local_record(params: Mapping[str, NDArray[Any] | Tensor]) -> ArrayRecord:
    """The arrays, or tensors of the CPU, as an `ArrayRecord` that has not been serialised."""
    record = ArrayRecord()
    record.__dict__["_data"].update(
        {name: LocalArray(value if isinstance(value, np.ndarray) else value.numpy()) for name, value in params.items()}
    )
    return record


def local_reply(
    arrays: Mapping[str, NDArray[Any]], metrics: Mapping[str, float], trace: Mapping[str, float]
) -> LocalContent:
    """What a client of this process replies: its model, metrics, and under `TRACE` what is not for aggregation."""
    told, traced = MetricRecord(), ConfigRecord()
    told.__dict__["_data"].update(metrics)
    traced.__dict__["_data"].update(trace)
    return LocalContent({"arrays": local_record(arrays), "metrics": told, TRACE: traced})


def reply_to(message: Message, content: RecordDict) -> Message:
    """`Message(content, reply_to=message)`, without checks of what is known, and without asking for the time."""
    asked = message.metadata
    metadata = Metadata(
        run_id=asked.run_id,
        message_id="",
        src_node_id=asked.dst_node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=asked.created_at,
        ttl=asked.ttl,
        message_type=asked.message_type,
        src_task_id=asked.dst_task_id,
        dst_task_id=asked.src_task_id,
    )
    metadata.delivered_at = ""
    answer = object.__new__(Message)
    answer.__dict__.update(_metadata=metadata, _content=content, _error=None)
    return answer


class LocalGrid(Grid):
    """A `Grid` over clients 0 .. N-1 of this process; `exchange` turns messages into replies."""

    def __init__(self, num_clients: int, exchange: Callable[[list[Message]], list[Message]]) -> None:
        self.nodes = range(FIRST_NODE, FIRST_NODE + num_clients)
        self._exchange = exchange
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """There is one run only."""

    @property
    def run(self) -> Run:
        """An empty description: nothing was submitted to a SuperLink."""
        return Run.create_empty(run_id=1)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A new message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, in the order of their clients: a list of its own, since a strategy may do with it as it likes."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Exchange at once; the replies wait for `pull_messages`."""
        replies = self._exchange(list(messages))
        start = len(self._replies)
        self._replies.update({f"message-{start + i}": reply for i, reply in enumerate(replies)})
        return [f"message-{start + i}" for i in range(len(replies))]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies to these messages, in their order."""
        waiting: Sequence[Message] = list(messages)
        return self._exchange(list(waiting)) if waiting else []


# --- Flower's simulation runtime --------------------------------------------------------------------------------------

RUN, TASK = 1, 1
"""The numbers of the one run of a simulation, and of its task: those that `in_process` gives to messages."""

QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "2",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Ray reports to nobody, prints nothing to our output, and does not take minutes to find an address deserted."""

PROBE_SECONDS = 5.0
"""How long the address of a cluster may take to accept a connection."""


def require_ray() -> None:
    """Errors: `ComponentError` where Flower's runtime cannot start because Ray is not installed."""
    if find_spec("ray") is None:
        raise ComponentError(
            "speed.engine",
            "flower runs on Ray, which is not installed; install it with: pip install 'fedmem[flower]' "
            "(the same as pip install 'flwr[simulation]'), or use engine: lockstep",
        )


@contextmanager
def simulation(
    client_app: ClientApp, *, nodes: int, workers: int, threads: int, address: str | None
) -> Iterator[tuple[Grid, Callable[[], None]]]:
    """Flower's simulation runtime on Ray: a grid with so many nodes, and a check that raises once the runtime is gone.

    The parts of `flwr.simulation.run_simulation`, put together so that the server stays in this thread: then an error
    or Ctrl-C there ends everything at once, instead of waiting for a thread that waits for replies. A worker process
    that dies is started again, and what it was doing is tried once more; Flower by itself would hand all further
    messages to the dead one. With an `address`, the cores of that cluster decide how many workers there are.
    """
    from flwr.proto.task_pb2 import Task
    from flwr.server.superlink.fleet.vce import vce_api
    from flwr.server.superlink.fleet.vce.metrics import VceMetrics
    from flwr.server.superlink.linkstate import LinkStateFactory
    from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
    from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager
    from flwr.superlink.grid import InMemoryGrid

    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    run = Run.create_empty(run_id=RUN)
    run.primary_task_id, run.federation_id = TASK, NOOP_FEDERATION_ID
    state: Any = factory.state()
    state.run_ids[RUN], state.task_store[TASK] = RunRecord(run=run), Task(task_id=TASK, run_id=RUN)
    grid = InMemoryGrid(factory)
    grid.set_run(run)
    mapping = vce_api._register_nodes(nodes, factory)
    stores = vce_api._register_node_info_stores(mapping, run)
    stop, ended = threading.Event(), []

    with _settings(QUIET), _ray(workers, threads, address) as backend:

        def serve() -> None:
            try:
                vce_api.run_api(lambda: client_app, lambda: backend, mapping, factory, stores, stop, VceMetrics())
            except Exception as error:
                ended.append(error)

        def check() -> None:
            if not thread.is_alive():
                cause = ended[0].__cause__ or ended[0] if ended else "it was shut down"
                raise RunError(f"Flower's simulation runtime ended by itself: {cause}")

        thread = threading.Thread(target=serve, name="flower-runtime", daemon=True)
        thread.start()
        try:
            yield grid, check
        finally:
            stop.set()
            while thread.is_alive():
                _kill_busy(backend)
                thread.join(timeout=0.2)


@contextmanager
def _ray(workers: int, threads: int, address: str | None) -> Iterator[Any]:
    """Flower's backend, connected to Ray; errors are raised here and not in a thread of Flower's."""
    if address is not None:
        _probe(address)
    import ray
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

    if ray.is_initialized():
        raise RunError(
            "Ray is running in this process already, and Flower would end it with the run; call ray.shutdown() "
            "before, and name a cluster that is to be used by speed.address."
        )
    init: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    init |= {"address": "local", "num_cpus": workers * threads} if address is None else {"address": address}
    if address is not None:
        del init["include_dashboard"]
    # Flower passes numbers on to the options of its actors
    resources: dict[str, Any] = {"num_cpus": threads, "num_gpus": 0.0, "max_restarts": -1, "max_task_retries": 1}
    try:
        backend: Any = RayBackend({"init_args": init, "client_resources": resources})
    except (Exception, SystemExit) as error:
        ray.shutdown()
        if address is None:
            raise RunError(f"Ray did not start: {error}") from error
        raise RunError(f"speed.address {address}: no Ray cluster can be used there: {error}") from error
    # Flower's thread would shut Ray down beneath its own workers, which then complain
    backend.terminate = lambda: None
    try:
        yield backend
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Errors: `RunError` where nobody listens; Ray itself would go on asking for minutes."""
    place = address.removeprefix("ray://")
    if place == "auto":
        return
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        raise RunError(
            f"speed.address {address}: no Ray cluster answers there ({error}); give the address of its head as "
            "HOST:PORT, or auto for one on this machine, or leave it out, and one is started here."
        ) from error


def _kill_busy(backend: Any) -> None:
    """End the workers that are still at work: their results are no longer wanted, and they may take long."""
    import ray

    if backend.pool is not None and ray.is_initialized():
        for actor in list(backend.pool._future_to_actor.values()):
            ray.kill(actor)


@contextmanager
def _settings(defaults: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment where they are not set yet; the environment and SIGTERM are put back afterwards."""
    before = dict(os.environ)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    level = logging.getLogger("flwr").level
    os.environ.update({name: value for name, value in defaults.items() if name not in before})
    # every client that fails would be logged with its traceback; we tell it ourselves
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.getLogger("flwr").setLevel(level)
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
        for name in [name for name in os.environ if os.environ[name] != before.get(name)]:
            del os.environ[name]
        os.environ.update(before)
