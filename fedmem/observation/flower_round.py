"""One round of a Flower strategy: its replies, and the first error in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, MetricRecord, RecordDict

from fedmem.errors import FedmemError

TRACE = "trace"
"""The `ConfigRecord` in which a client may send what is not for aggregation: `client` (its number) and scalars."""


def report_of(content: RecordDict) -> dict[str, float]:
    """The scalars in the trace of a reply."""
    # by items, since a record looks up and checks every key that a `dict` asks it for
    trace: dict[str, Any] = dict(content[TRACE].items()) if TRACE in content else {}
    return {name: float(value) for name, value in trace.items() if name != "client"}


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """A reply and its client."""

    message: Message
    client: int
    num_examples: int
    report: dict[str, float]

    @staticmethod
    def of(message: Message, client_of: Callable[[int], int] | None) -> _Reply:
        """Client number: by `client_of`, else what the client says of itself in its trace, else its node id."""
        node = int(message.metadata.src_node_id)
        client = node if client_of is None else client_of(node)
        if message.has_error():
            return _Reply(message=message, client=client, num_examples=0, report={})
        content = message.content
        if client_of is None and TRACE in content:
            traced: Any = content[TRACE]
            client = int(traced.get("client", node))
        metrics: Any = next((record for record in content.values() if isinstance(record, MetricRecord)), {})
        return _Reply(
            message=message,
            client=client,
            num_examples=int(metrics.get("num-examples", 0)),
            report=report_of(content),
        )


class FirstError:
    """The first error of fedmem in a training: it ends the training, also where the code of a strategy catches it.

    >>> errors = FirstError()
    >>> try:
    ...     with errors.note_error():
    ...         raise FedmemError("no model")
    ... except FedmemError:
    ...     pass
    >>> errors.raise_first()
    Traceback (most recent call last):
    fedmem.errors.FedmemError: no model
    """

    def __init__(self) -> None:
        self._error: FedmemError | None = None

    @contextmanager
    def note_error(self) -> Iterator[None]:
        """Around a call that may raise."""
        try:
            yield
        except FedmemError as error:
            self._error = self._error or error
            raise

    def raise_first(self) -> None:
        """Raise that error, if there was one."""
        if self._error is not None:
            raise self._error
