"""One round of a Flower strategy: its replies, and the first error in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, MetricRecord, RecordDict

from fedmem.contracts.evidence import ClientIdentity
from fedmem.errors import FedmemError

TRACE = "trace"
"""The `ConfigRecord` in which a client may send what is not for aggregation: `client` (its number) and scalars."""

PARTITION = "partition-id"
"""The entry of a node's `node_config` by which Flower's simulation numbers clients, and of replies that say it."""


def report_of(content: RecordDict) -> dict[str, float]:
    """The scalars in the trace of a reply."""
    # by items, since a record looks up and checks every key that a `dict` asks it for
    trace: dict[str, Any] = dict(content[TRACE].items()) if TRACE in content else {}
    return {name: float(value) for name, value in trace.items() if name != "client" and not isinstance(value, str)}


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """A reply and its client."""

    message: Message
    client: int
    num_examples: int
    report: dict[str, float]
    identity: ClientIdentity | None = None

    @staticmethod
    def of(message: Message, client: int, identity: ClientIdentity | None = None) -> _Reply:
        """Read the reply of this client; an error reply has no values."""
        if message.has_error():
            return _Reply(message=message, client=client, num_examples=0, report={}, identity=identity)
        content = message.content
        metrics: Any = next((record for record in content.values() if isinstance(record, MetricRecord)), {})
        return _Reply(
            message=message,
            client=client,
            num_examples=int(metrics.get("num-examples", 0)),
            report=report_of(content),
            identity=identity,
        )

    @property
    def rank(self) -> tuple[bool, int, str]:
        """By what replies are sorted: the number of the client, then those that have names, by name."""
        value = self.client if self.identity is None else self.identity.value
        return (isinstance(value, str), 0, value) if isinstance(value, str) else (False, value, "")


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
