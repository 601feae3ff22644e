"""Tests of `fedmem/apps/ownership.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.apps.assignment import Assignment
from fedmem.apps.ownership import Ownership
from fedmem.contracts.evidence import ClientIdentity, Transition

NODE = 2**63 + 5


def local(value: int | str, source: str = "partition-id", node: int = NODE) -> Transition:
    identity = ClientIdentity(value=value, source=source, node=node)
    return Transition(
        run=0, round=1, level="local", client=0, before={}, sent={}, kept={}, num_examples=1, identity=identity
    )


WHOLE = Transition.at_server(run=0, round_number=1, before={}, after={})


def test_a_row_says_who_holds_its_example() -> None:
    plan = Assignment(owner=(0, 1, 1), included=np.array([True, True, False]))
    ownership = Ownership({"mine": 3}, {"mine": plan})
    ownership.see([local(1)])
    rows = [{**row} for transition in (local(1), WHOLE) for row in ownership.labels(transition, "mine")]
    assert [row["holds"] for row in rows] == [False, True, False, True, True, False]
    assert [row["owner_seen"] for row in rows] == [False, True, True] * 2
    with pytest.warns(RuntimeWarning, match=r"1 client of member_of never took part in an observed round \(0\)"):
        frame = ownership.frame(rows, ("client", "owner", "holds"))
    assert frame.client.tolist() == [1, 1, 1, -1, -1, -1]
    assert frame.owner.tolist() == [0, 1, 1] * 2


def test_names_make_a_column_of_text() -> None:
    ownership = Ownership({"mine": 2}, {"mine": ["north", None]})
    ownership.see([local("north", "clients")])
    rows = [row for one in (local("north", "clients"), WHOLE) for row in ownership.labels(one, "mine")]
    frame = ownership.frame(rows, ("client", "owner", "holds"))
    assert frame.client.tolist() == ["north", "north", "", ""]
    assert frame.owner.tolist() == ["north", ""] * 2
    assert frame.holds.tolist() == [True, False] * 2


def test_owners_cannot_be_found_by_ids_of_nodes() -> None:
    ownership = Ownership({"mine": 2}, {"mine": 0})
    with pytest.raises(ValueError, match=rf"names client '0', .* such as {NODE}. Add 'partition-id'"):
        ownership.see([local(NODE, "node")])
    Ownership({"mine": 2}, {"mine": NODE}).see([local(NODE, "node")])


def test_names_get_a_remedy_that_gives_names() -> None:
    ownership = Ownership({"mine": 2}, {"mine": "nord"})
    with pytest.raises(ValueError, match=r"names client 'nord'.*ConfigRecord\(\{'client': 'nord'\}\)") as caught:
        ownership.see([local(NODE, "node")])
    assert "Add 'partition-id'" not in str(caught.value)
    numbered = Ownership({"mine": 1}, {"mine": "nord"})
    numbered.see([local(1)])
    with pytest.warns(RuntimeWarning, match=r"those that did: 1\. These are numbers, and member_of has names"):
        numbered.frame(numbered.labels(local(1), "mine"), ("client", "owner"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([0, 1, 2], "3 clients for 2 examples"),
        (Assignment(owner=(0,), included=np.array([True])), "1 clients for 2 examples"),
        ([0, 0.5], "0.5 is no client"),
        ([[0, 1], [1]], r"\[0, 1\] is no client"),
        (0.5, "0.5 is no client"),
    ],
)
def test_wrong_holders_are_refused(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Ownership({"mine": 2}, {"mine": value})
