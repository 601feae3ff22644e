"""Tests of `fedmem/samplers/by_size.py`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts.sampler import History
from fedmem.errors import ComponentError
from fedmem.samplers.by_size import BySize
from tests.samplers.samplers_helpers import agree, participation


def test_by_size_inclusion_is_exactly_proportional_to_rows() -> None:
    """Every start of the marks, for every order: inclusion is K n_k / n with no rounding at all."""
    sizes = [1, 2, 4, 5]

    class Every:
        """A generator that gives one order and one start, so that all can be enumerated."""

        def __init__(self, order: Sequence[int], start: int) -> None:
            self.order, self.start = list(order), start

        def permutation(self, clients: np.ndarray) -> np.ndarray:
            return clients[self.order]

        def integers(self, high: int) -> int:
            assert high == sum(sizes)
            return self.start

    counts, cases = np.zeros(4, dtype=int), 0
    for order in permutations(range(4)):
        for start in range(sum(sizes)):
            every: Any = Every(order, start)
            cohort = BySize(size=2).cohort(1, History.start(sizes), every)
            assert len(set(cohort.tolist())) == 2
            counts[cohort] += 1
            cases += 1
    assert (counts * sum(sizes)).tolist() == [2 * size * cases for size in sizes]


def test_by_size_test_rejects_successive_draws() -> None:
    """Successive draws with the same weights include the small too often; the test above is not blind to it."""
    sizes, rounds = np.array([1, 2, 4, 5]), 4000
    truth = (2 * sizes / 12).tolist()
    rng = np.random.default_rng(1)
    one_by_one = np.zeros(4)
    for _ in range(rounds):
        one_by_one[rng.choice(4, 2, replace=False, p=sizes / 12)] += 1
    assert agree(participation(BySize(size=2), History.start(sizes), rounds).sum(0).tolist(), rounds, truth)
    assert not agree(one_by_one.tolist(), rounds, truth)


def test_by_size_always_includes_very_large_clients() -> None:
    took = participation(BySize(size=3), History.start([100, 20, 3, 4, 5, 0]), 4000)
    assert took[:, 0].all()
    # 20 of the 32 rows that are left are more than half, so two places hold it for sure
    assert took[:, 1].all()
    assert not took[:, 5].any()
    assert agree(took.sum(0)[2:5].tolist(), 4000, [3 / 12, 4 / 12, 5 / 12])
    assert set(took.sum(1).tolist()) == {3}


def test_by_size_with_equal_rows_is_uniform_over_pairs() -> None:
    took = participation(BySize(size=3), 6, 3000)
    pairs = (took.T.astype(int) @ took.astype(int))[np.triu_indices(6, 1)]
    assert agree(pairs.tolist(), 3000, [0.2] * 15)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 10_000), min_size=1, max_size=12), data=st.data(), seed=st.integers(0, 99))
def test_by_size_always_draws_a_full_cohort(sizes: list[int], data: st.DataObject, seed: int) -> None:
    able = sum(size > 0 for size in sizes)
    if not able:
        with pytest.raises(ComponentError, match="0 of"):
            BySize(size=1).cohort(1, History.start(sizes), np.random.default_rng(0))
        return
    size = data.draw(st.integers(1, able))
    cohort = BySize(size=size).cohort(1, History.start(sizes), np.random.default_rng(seed))
    assert len(cohort) == size
    assert np.all(np.diff(cohort) > 0)
    assert all(sizes[client] for client in cohort)


def by_sorting(sizes: np.ndarray, places: int, rng: np.random.Generator) -> list[int]:
    """`by_size` with everything sorted and every mark a whole number."""
    certain: list[int] = []
    left = int(sizes.sum())
    for client in np.argsort(-sizes, kind="stable")[:places].tolist():
        if (places - len(certain)) * int(sizes[client]) < left:
            break
        certain.append(client)
        left -= int(sizes[client])
    others = rng.permutation(np.array([k for k in np.flatnonzero(sizes > 0) if k not in certain], dtype=np.int64))
    marks = places - len(certain)
    ends = np.cumsum(sizes[others])
    start = int(rng.integers(ends[-1])) if marks else 0
    for mark in range(marks):
        at = start + mark * int(ends[-1])
        certain.append(int(others[next(i for i, end in enumerate(ends.tolist()) if end * marks > at)]))
    return sorted(certain)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 2, 3, 7, 50]), min_size=1, max_size=12),
    data=st.data(),
    seed=st.integers(0, 9),
)
def test_by_size_cohort_equals_that_of_sorting(sizes: list[int], data: st.DataObject, seed: int) -> None:
    able = sum(size > 0 for size in sizes)
    if able:
        places = data.draw(st.integers(1, able))
        cohort = BySize(size=places).cohort(1, History.start(sizes), np.random.default_rng(seed))
        assert cohort.tolist() == by_sorting(np.array(sizes), places, np.random.default_rng(seed))
