"""By what the server of a Flower app knows its clients: a mapping, what they say in their replies, or their node.

A server knows nodes by ids of 64 bits that Flower draws again in each run. Which partition of the data a node holds is
in the `node_config` of the node, which the server does not see. So the client has to say it, or the user.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Message, MetricRecord

from fedmem.contracts.evidence import ClientIdentity
from fedmem.errors import RunError
from fedmem.observation.flower_round import PARTITION, TRACE

NODE = "node"
"""The source of an identity that is the id of the node."""

MAPPING = "clients"
"""The source of an identity that the user gave."""


class Identities:
    """The identities of all clients of one training, in this order of preference:

    1. `clients`, the user's mapping from node id to client;
    2. `client` in the `ConfigRecord` named `trace` of the reply;
    3. the entry `client_key` of a `MetricRecord` or `ConfigRecord` of the reply;
    4. the id of the node.

    Errors: `ValueError` for a mapping that gives two nodes the same client.

    >>> Identities({17: "north", 23: "south"}).names
    ('north', 'south')
    """

    def __init__(self, clients: Mapping[int, int | str] | None = None, client_key: str = PARTITION) -> None:
        if clients is not None:
            _check_mapping(clients)
        self._clients = None if clients is None else {int(node): value for node, value in clients.items()}
        self._key = client_key
        self._by_node: dict[int, ClientIdentity] = {}
        self._node_of: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...] | None:
        """The clients of the mapping as text; None without a mapping."""
        return None if self._clients is None else tuple(str(value) for value in self._clients.values())

    def of(self, message: Message) -> ClientIdentity:
        """The client of a reply; of an error, that of an earlier reply of its node. Never raises."""
        node = int(message.metadata.src_node_id)
        if self._clients is not None and node in self._clients:
            return ClientIdentity(value=self._clients[node], source=MAPPING, node=node)
        if message.has_error():
            return self._by_node.get(node, ClientIdentity(value=node, source=NODE, node=node))
        value, source = self._read_reply(message)
        return ClientIdentity(value=node if value is None else value, source=source, node=node)

    def _read_reply(self, message: Message) -> tuple[int | str | None, str]:
        """The identity of the client in a reply, and its source."""
        content = message.content
        trace: Any = content.get(TRACE, {})
        if (value := _scalar(trace.get("client"))) is not None:
            return value, TRACE
        # the metrics first, since a client may send its whole configuration back
        for record in sorted(content.values(), key=lambda record: not isinstance(record, MetricRecord)):
            entry: Any = record.get(self._key)
            if (value := _scalar(entry)) is not None:
                return value, self._key
        return None, NODE

    def check(self, round_number: int, identities: Sequence[ClientIdentity], connected: Collection[int]) -> None:
        """Compare the clients of a round with each other and with earlier rounds; `connected` are Flower's nodes.

        Errors: `RunError` if two nodes are one client, or if a node is another client than before. `RunError` also if
        only some clients identify themselves, or if the user's mapping lacks a node.
        """
        place = f"round {round_number}"
        sources = {identity.source: identity for identity in identities}
        if self._clients is not None and set(sources) - {MAPPING}:
            lacking = next(one for one in identities if one.source != MAPPING)
            absent = [str(node) for node in self._clients if node not in connected]
            raise RunError(
                f"{place}: clients has no entry for node {lacking.node}, which replied. Give each node one, for "
                f"example clients={{{lacking.node}: {str(len(self._clients))!r}, …}}."
                + (f" These nodes of the mapping are not connected: {', '.join(absent)}." if absent else "")
            )
        if len(sources) > 1:
            parts = "; ".join(f"node {one.node} by {source} ({one.value})" for source, one in sorted(sources.items()))
            raise RunError(
                f"{place}: clients are known in different ways: {parts}. Let every client return {self._key!r} in its "
                "metrics, or none."
            )
        for identity in identities:
            self._check_one(place, identity, connected)
        by_value: dict[str, int] = {}
        for identity in identities:
            other = by_value.setdefault(str(identity.value), identity.node)
            if other != identity.node:
                raise _two_nodes(place, identity, other)
        for identity in identities:
            self._by_node[identity.node] = identity
            self._node_of[str(identity.value)] = identity.node

    def check_named(self, round_number: int, named: Sequence[str], connected: Collection[int]) -> None:
        """Compare the clients that a watcher names with those that took part so far.

        A client that did not take part yet may be one of them, and so may one of the user's mapping. So the error comes
        once all connected clients took part, or at once where one side has numbers and the other names.

        Errors: `RunError` if none of the named clients can be a client of this app.
        """
        values = [str(one.value) for one in self._by_node.values() if one.source not in (NODE, MAPPING)]
        if not named or not values or set(named) & set(values):
            return
        differ = {_are_numbers(named), _are_numbers(values)} == {True, False}
        if not differ and not set(connected) <= self._by_node.keys():
            return
        source = next(iter(self._by_node.values())).source
        hint = ""
        if _are_numbers(values) and _are_numbers(named) is False:
            hint = (
                ", or let the clients return their names in a record, 'trace': ConfigRecord({'client': name}), since "
                "metrics hold numbers alone"
            )
        raise RunError(
            f"round {round_number}: none of the {len(named)} clients that member_of names ({_list_names(named)}) is a "
            f"client of this app; by {source!r} its clients are {_list_names(values)}. Use these in member_of (and in "
            f"assign_canaries){hint}."
        )

    def _check_one(self, place: str, identity: ClientIdentity, connected: Collection[int]) -> None:
        before = self._by_node.get(identity.node)
        if before is not None and str(before.value) != str(identity.value):
            raise RunError(
                f"{place}: node {identity.node} is client {identity.value}, and was client {before.value} in an "
                f"earlier round. A client has one {identity.source} for the whole training."
            )
        # a node that was started again has a new id; two that are connected are two
        other = self._node_of.get(str(identity.value), identity.node)
        if other != identity.node and other in connected:
            raise _two_nodes(place, identity, other)


def _two_nodes(place: str, identity: ClientIdentity, other: int) -> RunError:
    return RunError(
        f"{place}: nodes {other} and {identity.node} are both client {identity.value} (by {identity.source}). Each "
        "client needs an identity of its own; give clients={node id: client} to Observed, or return "
        "another entry and name it in client_key."
    )


def _are_numbers(names: Sequence[str]) -> bool | None:
    """Whether all are numbers, or none is; None if only some are."""
    numbers = [name.isdecimal() for name in names]
    return None if any(numbers) and not all(numbers) else all(numbers)


def _list_names(names: Sequence[str]) -> str:
    more = f", and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _check_mapping(clients: Mapping[int, int | str]) -> None:
    nodes: dict[str, int] = {}
    entries: Iterable[tuple[Any, Any]] = clients.items()
    for node, value in entries:
        if isinstance(node, bool) or not isinstance(node, int):
            raise ValueError(f"clients: {node!r} is no node id; give whole numbers, as `flwr supernode list` has them")
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise ValueError(f"clients[{node}]: {value!r} is no client; give a number or a name")
        other = nodes.setdefault(str(value), node)
        if other != node:
            raise ValueError(f"clients: nodes {other} and {node} are both client {value!r}; give each one its own")
    if len({isinstance(value, str) for value in clients.values()}) > 1:
        raise ValueError("clients has numbers and names; give numbers to all, or names to all")


def _scalar(value: Any) -> int | str | None:
    """A whole number or a text; None for anything else."""
    if isinstance(value, bool) or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else None
