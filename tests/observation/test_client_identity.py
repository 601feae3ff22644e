"""Who the clients of an app are: by mapping, reply or node; and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedmem.contracts.evidence import ClientIdentity
from fedmem.engines._flower import in_process, reply_to
from fedmem.errors import RunError
from fedmem.observation.client_identity import Identities


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def reply(node: int, metrics: Mapping[str, Any], **records: ConfigRecord) -> Message:
    content = RecordDict({"metrics": MetricRecord({"num-examples": 1, **metrics}), **records})
    return reply_to(Message(RecordDict(), node, "train"), content)


def identify(identities: Identities, message: Message) -> tuple[int | str, str]:
    identity = identities.of(message)
    return identity.value, identity.source


def identity(node: int, value: int | str, source: str = "partition-id") -> ClientIdentity:
    return ClientIdentity(value=value, source=source, node=node)


def test_mapping_then_trace_then_entry_then_node() -> None:
    said = {"partition-id": 4.0}
    traced = reply(7, said, trace=ConfigRecord({"client": 5}))
    assert identify(Identities({7: "north"}), traced) == ("north", "clients")
    assert identify(Identities(), traced) == (5, "trace")
    assert identify(Identities(), reply(7, said)) == (4, "partition-id")
    assert identify(Identities(), reply(7, {})) == (7, "node")
    assert identify(Identities(), reply(7, {"partition-id": 0.5})) == (7, "node")
    named = reply(7, said, info=ConfigRecord({"hospital": "south"}))
    assert identify(Identities(client_key="hospital"), named) == ("south", "hospital")


def test_a_failed_reply_has_the_client_that_its_node_had() -> None:
    identities = Identities()
    failed = Message(Error(1, "no battery"), reply_to=Message(RecordDict(), 7, "train"))
    assert identify(identities, failed) == (7, "node")
    identities.check(1, [identity(7, 4)], ())
    assert identify(identities, failed) == (4, "partition-id")


def test_two_nodes_are_never_one_client() -> None:
    with pytest.raises(RunError, match=r"round 2: nodes 7 and 8 are both client 4 \(by partition-id\)"):
        Identities().check(2, [identity(7, 4), identity(8, 4)], ())
    identities = Identities()
    identities.check(1, [identity(7, 4)], (7, 8))
    with pytest.raises(RunError, match="nodes 7 and 8 are both client 4"):
        identities.check(2, [identity(8, 4)], (7, 8))
    identities.check(3, [identity(8, 4)], (8,))
    with pytest.raises(ValueError, match="nodes 1 and 2 are both client 'a'"):
        Identities({1: "a", 2: "a"})


def test_a_client_stays_who_it_was() -> None:
    identities = Identities()
    identities.check(1, [identity(7, 4)], ())
    with pytest.raises(RunError, match="node 7 is client 3, and was client 4"):
        identities.check(2, [identity(7, 3)], ())


def test_clients_are_all_known_in_the_same_way() -> None:
    with pytest.raises(RunError, match=r"known in different ways: node 8 by node .*; node 7 by partition-id"):
        Identities().check(1, [identity(7, 4), identity(8, 8, "node")], ())
    with pytest.raises(RunError, match=r"no entry for node 8, which replied.*mapping are not connected: 9\.$"):
        Identities({7: 0, 9: 1}).check(1, [identity(7, 0, "clients"), identity(8, 8, "node")], (7, 8))


@pytest.mark.parametrize(
    ("clients", "said"),
    [({"7": 0}, "'7' is no node id"), ({7: 0.5}, "0.5 is no client"), ({7: 0, 8: "a"}, "numbers and names")],
)
def test_a_wrong_mapping_is_refused(clients: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Identities(clients)
