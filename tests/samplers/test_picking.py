"""Tests of `fedmem/samplers/_picking.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.sampler import History
from fedmem.errors import ComponentError
from fedmem.samplers._picking import pick_highest, pick_weighted, with_rows


def test_clients_without_rows_are_left_out() -> None:
    history = History.start([3, 0, 5, 0, 1])
    assert with_rows(history, 3).tolist() == [0, 2, 4]
    with pytest.raises(ComponentError, match="a cohort of 4, but 3 of 5 clients have rows") as caught:
        with_rows(history, 4, field="candidates")
    assert caught.value.path == "sampler.candidates"


def test_ties_at_the_threshold_are_drawn_evenly() -> None:
    values = np.array([2.0, 1.0, np.nan, 1.0, 1.0, 0.0])
    rng, counts = np.random.default_rng(0), np.zeros(6, int)
    for _ in range(1500):
        found = pick_highest(values, 3, rng)
        assert found.tolist() == sorted(set(found.tolist()))
        counts[found] += 1
    assert counts[[0, 2]].tolist() == [1500, 1500]
    assert counts[5] == 0
    assert stats.chisquare(counts[[1, 3, 4]]).pvalue > 1e-3


def test_weighted_pairs_have_the_law_of_successive_draws() -> None:
    weights, rng, counts = np.array([1.0, 2.0, 5.0]), np.random.default_rng(0), np.zeros(3)
    for _ in range(3000):
        counts[pick_weighted(weights, 2, rng)] += 1
    # client k is left out if the two others are drawn, in either order
    p = weights / weights.sum()
    left = [p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    assert stats.chisquare(3000 - counts, 3000 * np.array(left)).pvalue > 1e-3
    assert stats.chisquare(3000 - counts, 3000 * p[::-1]).pvalue < 1e-3
    assert pick_weighted(weights, 0, rng).tolist() == []
