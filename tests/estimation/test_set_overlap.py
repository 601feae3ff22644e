"""Tests of `fedmem/estimation/set_overlap.py`."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.set_overlap import expected_jaccard, jaccard, jaccard_excess


@pytest.mark.parametrize("a", range(5))
@pytest.mark.parametrize("b", range(5))
@pytest.mark.parametrize("total", [4, 6])
def test_chance_is_the_mean_over_all_pairs_of_sets(a: int, b: int, total: int) -> None:
    pairs = [(set(one), set(two)) for one in combinations(range(total), a) for two in combinations(range(total), b)]
    expected = np.mean([len(one & two) / max(1, len(one | two)) for one, two in pairs])
    assert expected_jaccard(a, b, total) == pytest.approx(expected, abs=1e-12)
    assert expected_jaccard(b, a, total) == pytest.approx(expected, abs=1e-12)


def random_sets(rng: np.random.Generator, count: int, size: int, total: int) -> FloatArray:
    return np.array([rng.choice(total, size, replace=False) for _ in range(count)], dtype=np.float64)


def test_random_sets_have_a_mean_of_0() -> None:
    rng = np.random.default_rng(0)
    values = jaccard_excess(random_sets(rng, 4000, 5, 20), random_sets(rng, 4000, 3, 20), 20)
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    # a wrong chance term, such as the ratio of the means, is seen
    assert expected_jaccard(5, 3, 20) - (5 * 3 / 20) / (8 - 5 * 3 / 20) > 3 * error


def test_equal_and_disjoint_sets_are_the_ends() -> None:
    sets, others = np.array([[1.0, 4.0, 2.0]]), np.array([[0.0, 3.0, 5.0]])
    assert jaccard(sets, sets[:, ::-1]) == 1.0, "the order does not count"
    assert jaccard(sets, others) == 0.0
    assert jaccard_excess(sets, sets, 12) == pytest.approx(1.0 - expected_jaccard(3, 3, 12))
    assert jaccard_excess(sets, others, 12) == pytest.approx(-expected_jaccard(3, 3, 12))


def test_empty_sets_and_no_pairs_have_no_overlap() -> None:
    nothing, some = np.full((1, 3), np.nan), np.array([[1.0, 2.0, np.nan]])
    for first, second in ((nothing, nothing), (nothing, some), (some, nothing)):
        assert jaccard_excess(first, second, 8) == 0.0
    assert jaccard_excess(np.empty((0, 3)), np.empty((0, 3)), 8).shape == (0,)
