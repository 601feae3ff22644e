"""The only file that touches what is private in Flower: message identity, and messages that stay in the process."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

# read by Flower when it is imported: a simulation reports to nobody
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedmem.roster import FIRST_NODE as FIRST_NODE
from fedmem.types import Params


@contextmanager
def in_process() -> Iterator[None]:
    """Lets `Message(...)` be built outside of Flower's runtime, and quiets Flower's logger to errors.

    Some strategies collect garbage once for every reply, which goes through all objects that there are, torch's own
    included. What exists already is therefore set aside from collection until the end.
    """
    identity = {name: getattr(TaskIdentity, name) for name in ("_task_id", "_run_id", "_node_id")}
    logger = logging.getLogger("flwr")
    level = logger.level
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    logger.setLevel(logging.ERROR)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        logger.setLevel(level)
        for name, value in identity.items():
            setattr(TaskIdentity, name, value)


class LocalArray(Array):
    """An `Array` that keeps its ndarray and serialises only when somebody asks for bytes.

    `numpy()` gives a fresh copy each time, as the serialised form does, so that nobody can change a message in place.
    """

    def __init__(self, ndarray: NDArray[Any]) -> None:
        self.__dict__.update(_ndarray=ndarray, dtype=str(ndarray.dtype), shape=tuple(ndarray.shape))
        self.__dict__["stype"] = "numpy.ndarray"

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes that an ordinary `Array` would hold."""
        buffer = BytesIO()
        np.save(buffer, self.__dict__["_ndarray"], allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> NDArray[Any]:
        """A copy of the array."""
        return np.array(self.__dict__["_ndarray"])


def local_record(params: Params) -> ArrayRecord:
    """The parameters as an `ArrayRecord` that has not been serialised."""
    record = ArrayRecord()
    for name, value in params.items():
        record[name] = LocalArray(value.detach().numpy())
    return record


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
