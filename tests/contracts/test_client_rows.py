"""Rows found when asked for are those of the plain definition, client by client and copy by copy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts import client_rows
from fedmem.contracts.audit_set import FOREVER
from fedmem.contracts.client_rows import ClientRows
from fedmem.contracts.federation import Federation
from fedmem.contracts.ragged import Ragged
from fedmem.federation import build as federations
from tests.tiny import TINY, tiny


def plain(built: Federation, run: int, client: int, round_number: int) -> list[int]:
    """The definition, as loops."""
    audit = built.audit
    if audit.client_in is not None and not audit.client_in[run, client]:
        return []
    rows: list[int] = built.base[client].tolist()
    copy = 0
    for j in range(len(audit)):
        for _ in range(audit.copies[j]):
            if audit.owners[copy] == client:
                inside = audit.is_in[run, j] and audit.start[j] <= round_number <= audit.stop[j]
                stand = int(built.trained_rows[copy] if inside else built.replacement[run, copy])
                rows += [stand] if stand >= 0 else []
            copy += 1
    return rows


windows = st.sampled_from([(None, None), (2, None), (None, 1), (2, 3)])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    exclusion=st.sampled_from(["replace", "remove"]),
    leave_out=st.sampled_from([0, 2, "all"]),
    skew=st.booleans(),
    placed=st.lists(
        st.tuples(st.sampled_from(["typical", "mislabelled", "random_pattern"]), windows, st.integers(1, 3)),
        min_size=1,
        max_size=3,
    ),
    who=st.sampled_from(["all", [0, 3], {"count": 1}]),
)
def test_rows_are_those_of_the_definition(
    seed: int, exclusion: str, leave_out: Any, skew: bool, placed: list[Any], who: Any
) -> None:
    scenario = tiny(
        seed=seed,
        exclusion=exclusion,
        leave_out={"clients": leave_out},
        partition={"kind": "feature_skew"} if skew else {"kind": "iid"},
        injections=[
            {
                "kind": kind,
                "start": start,
                "stop": stop,
                "copies": copies,
                "per_client": 2,
                "clients": who,
                "label": f"k{i}",
            }
            for i, (kind, (start, stop), copies) in enumerate(placed)
        ],
    )
    built = federations.build(scenario)
    pairs = [(run, client) for run in range(scenario.runs) for client in range(scenario.clients)]
    runs, clients = np.array(pairs).T
    for round_number in range(scenario.rounds + 1):
        expected = [plain(built, run, client, round_number) for run, client in pairs]
        assert [built.rows(run, client, round_number).tolist() for run, client in pairs] == expected
        assert [part.tolist() for part in built.rows_of(runs, clients, round_number)] == expected
        assert built.sizes_of(runs, clients, round_number).tolist() == [len(rows) for rows in expected]


def test_example_without_owner_is_not_trained_on() -> None:
    built = federations.build(tiny())
    audit = replace(built.audit, owner=np.where(np.arange(len(built.audit)) % 2, -1, built.audit.owner))
    changed = replace(built, audit=audit)
    for client in range(5):
        assert changed.rows(0, client, 1).tolist() == plain(changed, 0, client, 1)
        assert len(changed.rows(0, client, 1)) < len(built.rows(0, client, 1))


def test_copies_held_by_several_clients_are_trained_on_there() -> None:
    built = federations.build(tiny(injections=[{"kind": "typical", "per_client": 2, "copies": 3}]))
    owner = np.random.default_rng(0).integers(5, size=int(built.audit.copies.sum())).astype(np.int32)
    shared = replace(built, audit=replace(built.audit, copy_owner=owner))
    pairs = np.array([(run, client) for run in range(4) for client in range(5)])
    runs, clients = pairs.T
    expected = [plain(shared, run, client, 1) for run, client in pairs.tolist()]
    assert [shared.rows(run, client, 1).tolist() for run, client in pairs.tolist()] == expected
    assert [part.tolist() for part in shared.rows_of(runs, clients, 1)] == expected
    assert shared.sizes_of(runs, clients, 1).tolist() == [len(rows) for rows in expected]
    assert expected != [plain(built, run, client, 1) for run, client in pairs.tolist()]


def test_pairs_may_repeat_and_come_in_any_order() -> None:
    built = federations.build(tiny())
    runs, clients = np.array([3, 0, 3, 3]), np.array([4, 1, 4, 0])
    found = built.rows_of(runs, clients, 2)
    assert [part.tolist() for part in found] == [
        plain(built, run, client, 2) for run, client in zip(runs.tolist(), clients.tolist(), strict=True)
    ]
    assert len(built.rows_of(np.array([], int), np.array([], int), 1)) == 0
    assert built.sizes_of(np.array([], int), np.array([], int), 1).tolist() == []


def test_cached_rows_are_shared_read_only_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    built = federations.build(tiny())
    first = built.rows(0, 0, 1)
    assert built.rows(0, 0, 2) is first, "rounds of one window share an array"
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        federations.build(tiny(injections=[])).rows(0, 0, 1)[0] = 1
    monkeypatch.setattr(client_rows, "KEPT_ROWS", 3 * len(first))
    small = replace(built)
    for _ in range(3):
        for run in range(4):
            for client in range(5):
                assert small.rows(run, client, 1).tolist() == built.rows(run, client, 1).tolist()
                kept = small._client_rows._cache._arrays.values()
                assert sum(map(len, kept)) <= 3 * len(first)
                assert len(kept) >= 2 or client + run == 0, "as much is remembered as there is room for"


def test_windows_that_are_open_in_the_same_rounds_are_one() -> None:
    windowed = [{**TINY["injections"][0], "start": 2, "stop": 3}, {**TINY["injections"][1], "start": 2}]
    built = federations.build(tiny(injections=windowed))
    held = built._client_rows
    assert [held._window(round_number) for round_number in range(5)] == [0, 0, 1, 1, 2]
    assert built.audit.stop.max() == FOREVER


def test_only_what_is_asked_for_is_built() -> None:
    """A federation of a million clients answers for two of them without touching the others."""

    class Counted(np.ndarray):
        """Counts the rows that leave it."""

        left = 0

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            Counted.left += np.size(found)
            return found

    clients = 10**6
    base = Ragged(rows=np.arange(clients).view(Counted), starts=np.arange(clients + 1))
    held = ClientRows(
        base=base,
        owner=np.array([5, 5, 5, 999_999], np.int32),
        copies=np.array([1, 2, 1], np.int32),
        is_in=np.array([[True, False, True]]),
        start=np.zeros(3, np.int32),
        stop=np.full(3, FOREVER, np.int32),
        trained_rows=np.array([-8, -1, -1, -7]) + clients + 100,
        replacement=np.array([[-1, clients, clients + 1, -1]]),
    )
    Counted.left = 0
    assert held.rows(0, 5, 1).tolist() == [5, clients + 92, clients, clients + 1]
    assert held.rows(0, 999_999, 1).tolist() == [999_999, clients + 93]
    assert held.rows(0, 7, 1).tolist() == [7]
    assert Counted.left == 3
    found = held.rows_of(np.array([0, 0]), np.array([7, 999_999]), 1)
    assert [part.tolist() for part in found] == [[7], [999_999, clients + 93]]
    assert Counted.left == 5
