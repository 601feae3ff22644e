"""Tests of `fedmem/injections/_secret_sharing.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from fedmem.contracts.data import ClientData
from fedmem.errors import ComponentError
from fedmem.injections.secret import Secret
from fedmem.modalities.text.windows import PADDING, join_windows
from tests.injections.secret_helpers import (
    CHARACTERS,
    CLIENTS,
    DATA,
    LENGTH,
    ROWS,
    people,
    plan,
    texts,
    written,
)
from tests.narrowing import present


def test_a_share_of_the_rows_is_replaced_by_as_many_copies() -> None:
    injection = Secret(share=0.1, shared_by=2, per_client=1)
    clients = people(sizes=(30, 20, 4, 30, 10, 30))
    planned = plan(injection, clients=clients)
    for group, total in zip(
        np.split(present(planned.owners), np.cumsum(planned.copies)[:-1]), planned.copies, strict=True
    ):
        counts = {int(k): int(n) for k, n in zip(*np.unique(group, return_counts=True), strict=True)}
        assert counts == {k: {0: 3, 1: 2, 2: 1, 3: 3, 4: 1, 5: 3}[k] for k in counts}
        assert total == sum(counts.values())
    assert planned.copies.sum() <= injection.total_copies(CLIENTS, sum(len(one.examples) for one in clients))


@pytest.mark.parametrize(("position", "places"), [("start", {0}), ("end", {31}), ("random", set(range(32)))])
def test_copies_stand_in_rows_of_their_owner(
    position: Literal["alone", "start", "end", "random"], places: set[int]
) -> None:
    planned = plan(Secret(template="code {digits:5}", position=position, copies=40, shared_by=2, per_client=1))
    own = [set(map(tuple, join_windows(one.examples.inputs, one.examples.targets).tolist())) for one in people()]
    at = []
    subject = np.repeat(np.arange(CLIENTS), planned.copies)
    rows = written(present(planned.extra))
    for slot, owner, j in zip(present(planned.copy_index), present(planned.owners), subject, strict=True):
        secret = texts(planned)[j]
        at.append(rows[slot].index(secret))
        rest = rows[slot].replace(secret, "")
        hosts = [CHARACTERS.decode(host) for host in own[owner]]
        assert any(host[: at[-1]] + host[at[-1] + len(secret) :] == rest for host in hosts)
    assert set(at) == places
    assert len(set(present(planned.copy_index).tolist())) == len(present(planned.extra)) == planned.copies.sum()
    per_host: dict[int, list[int]] = {}
    for slot, owner in zip(present(planned.copy_index), present(planned.owners), strict=True):
        per_host.setdefault(int(owner), []).append(int(slot))
    assert all(len(slots) == 80 for slots in per_host.values())


def test_client_with_short_rows_is_an_error_for_secrets() -> None:
    short = replace(DATA.train, targets=np.where(np.arange(LENGTH) == LENGTH - 1, PADDING, DATA.train.targets))
    clients = [ClientData(client=3, examples=short.take(np.arange(ROWS)))]
    with pytest.raises(ComponentError, match="client 3 has no row of 41 tokens") as caught:
        plan(Secret(position="random"), clients=clients)
    assert caught.value.path == "injections.position"
    assert len(plan(Secret(), clients=clients).examples) == 4
