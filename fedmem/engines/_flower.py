"""Private parts of Flower that fedmem uses: message identity, and messages that stay in the process.

The private parts of Flower's simulation runtime are in `_simulation.py`. Both are guarded: with a version of Flower
that differs, one message says which versions work.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmem.federation.roster import FIRST_NODE as FIRST_NODE
from fedmem.guards.flower_range import private_parts_of_flower, require_attributes
from fedmem.observation.flower_round import TRACE

with private_parts_of_flower():
    from flwr.app.message.recorddict import _SyncedDict
    from flwr.app.metadata import Metadata
    from flwr.supercore import telemetry
    from flwr.supercore.run import Run as Run
    from flwr.supercore.task_identity import TaskIdentity

    require_attributes(TaskIdentity, "_task_id", "_run_id", "_node_id")
    require_attributes(telemetry, "FLWR_TELEMETRY_ENABLED")
    require_attributes(Run, "create_empty")
    require_attributes(ArrayRecord(), "_data")
    require_attributes(RecordDict(), "_data")

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def in_process() -> Iterator[None]:
    """Lets `Message(...)` be built outside of Flower's runtime; Flower logs errors alone, and reports to nobody.

    Some strategies collect garbage once for every reply, which goes through all objects that there are, torch's own
    included. Objects that exist already are therefore exempt from collection until the end. Within another such block
    nothing is done. Banks that go on in step, and end out of order, are in one block around all of them.
    """
    record_class: Any = ArrayRecord
    from_array_dict = vars(ArrayRecord)["from_array_dict"]
    if getattr(from_array_dict, "__func__", None) is _from_arrays:
        yield
        return
    identity = {name: getattr(TaskIdentity, name) for name in ("_task_id", "_run_id", "_node_id")}
    authors = _modules_that_make_arrays()
    logger = logging.getLogger("flwr")
    level, reports, thresholds = logger.level, telemetry.FLWR_TELEMETRY_ENABLED, gc.get_threshold()
    try:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        logger.setLevel(logging.ERROR)
        if "FLWR_TELEMETRY_ENABLED" not in os.environ:
            telemetry.FLWR_TELEMETRY_ENABLED = "0"
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)  # messages come by the thousand, and die by themselves
        for module in authors:
            module.Array = _Unserialised
        record_class.from_array_dict = staticmethod(_from_arrays)
        yield
    finally:
        record_class.from_array_dict = from_array_dict
        for module in authors:
            module.Array = Array
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        telemetry.FLWR_TELEMETRY_ENABLED = reports
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

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        """A copy, since a strategy may go on with its array; anything but one ndarray is left to Flower."""
        if len(arguments) == 1 and not keywords and isinstance(arguments[0], np.ndarray):
            return LocalArray(arguments[0].copy())
        return Array(*arguments, **keywords)


def _from_arrays(array_dict: dict[str, Array], *, keep_input: bool = True) -> ArrayRecord:
    """`ArrayRecord.from_array_dict`, which copies every `Array` by way of its bytes; those of this process stay."""
    record = ArrayRecord()
    for name, array in array_dict.items():
        is_local = isinstance(array, LocalArray)
        record[name] = array if is_local else Array(array.dtype, tuple(array.shape), array.stype, array.data)
    if not keep_input:
        array_dict.clear()
    return record


def _modules_that_make_arrays() -> list[Any]:
    """The modules of Flower's strategies and of ours that know `Array` by name."""
    names = [name for name in sys.modules if name.startswith(("flwr.serverapp.strategy.", "fedmem.strategies."))]
    return [sys.modules[name] for name in names if getattr(sys.modules[name], "Array", None) is Array]


class LocalContent(RecordDict):
    """A `RecordDict` whose records are known to be of the right types.

    Each time that records of one type are read, Flower makes a new view and checks every record in it again. This costs
    more than training a small model. Here the same view is made without the checks, and kept until a record is put in
    or taken out.
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
    """The reply of a client in this process: its model, metrics, and, under `TRACE`, values that are not aggregated."""
    metric_record, trace_record = MetricRecord(), ConfigRecord()
    metric_record.__dict__["_data"].update(metrics)
    trace_record.__dict__["_data"].update(trace)
    return LocalContent({"arrays": local_record(arrays), "metrics": metric_record, TRACE: trace_record})


def reply_to(message: Message, content: RecordDict) -> Message:
    """`Message(content, reply_to=message)`, without checks of what is known, and without asking for the time."""
    request = message.metadata
    metadata = Metadata(
        run_id=request.run_id,
        message_id="",
        src_node_id=request.dst_node_id,
        dst_node_id=request.src_node_id,
        reply_to_message_id=request.message_id,
        group_id=request.group_id,
        created_at=request.created_at,
        ttl=request.ttl,
        message_type=request.message_type,
        src_task_id=request.dst_task_id,
        dst_task_id=request.src_task_id,
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
