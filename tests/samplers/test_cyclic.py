"""Tests of `fedmem/samplers/cyclic.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts.sampler import History
from fedmem.samplers.cyclic import Cyclic
from tests.samplers.samplers_helpers import participation


@settings(max_examples=60, deadline=None)
@given(clients=st.integers(1, 12), data=st.data(), rounds=st.integers(1, 40), seed=st.integers(0, 9))
def test_cyclic_gives_all_clients_equally_many_participations(
    clients: int, data: st.DataObject, rounds: int, seed: int
) -> None:
    size = data.draw(st.integers(1, clients))
    known = History.start([1] * clients, order=np.random.default_rng(seed).permutation(clients))
    took = participation(Cyclic(size=size), known, rounds)
    assert set(took.sum(1).tolist()) == {size}
    assert took.sum(0).min() >= rounds * size // clients
    assert took.sum(0).max() <= -(-rounds * size // clients)


def test_cyclic_blocks_follow_the_order_and_wrap() -> None:
    known = History.start([1] * 5, order=[4, 2, 0, 1, 3])
    found = [
        Cyclic(size=2).cohort(round_number, known, np.random.default_rng(round_number)).tolist()
        for round_number in range(1, 7)
    ]
    assert found == [[2, 4], [0, 1], [3, 4], [0, 2], [1, 3], [2, 4]]
