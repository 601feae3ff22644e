"""Exact p of single examples, their adjustment, and the intervals of the selected."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import hypergeom

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.single_examples import adjust, level_of_selected, p_of_few, p_of_rank, smallest_p, upper_p
from fedmem.estimation.statistics import newcombe


def by_counting(values: FloatArray, coins: np.ndarray) -> float:
    """The share of all ways to choose the in runs whose mean rank is as high."""
    ranks = np.array([(values < v).sum() + 0.5 * (values == v).sum() for v in values])
    happened = ranks[coins].sum()
    sums = [sum(ranks[list(ways)]) for ways in combinations(range(len(values)), int(coins.sum()))]
    return float(np.mean([one >= happened - 1e-9 for one in sums]))


@pytest.mark.parametrize("levels", [1, 2, 3, 100])
def test_p_is_that_of_counting_all_ways(levels: int) -> None:
    rng = np.random.default_rng(levels)
    values = rng.integers(0, levels, (9, 6)).astype(np.float64)
    coins = rng.permuted(np.tile(np.arange(9) < 4, (6, 1)).T, axis=0)
    expected = [by_counting(values[:, j], coins[:, j]) for j in range(6)]
    np.testing.assert_allclose(upper_p(values, coins), expected, atol=1e-12)


def test_p_of_few_is_that_of_each_and_not_below_the_floor() -> None:
    rng = np.random.default_rng(0)
    coins = rng.permuted(np.tile(np.arange(8) < 4, (9, 1)).T, axis=0)
    values = rng.normal(size=(8, 9)) + 9 * coins * (np.arange(9) == 2)
    p = p_of_few(values, coins, np.array([2, 5]))
    assert p is not None
    np.testing.assert_allclose(p, [by_counting(values[:, j], coins[:, j]) for j in (2, 5)], atol=1e-12)
    assert p[0] == pytest.approx(smallest_p(coins)) == pytest.approx(1 / 70)
    assert by_counting(-values[:, 2], coins[:, 2]) == 1, "the other tail"
    assert p_of_few(values, coins, np.arange(8)) is None


def test_p_of_a_rank_is_that_of_counting_places() -> None:
    """Among N + 1 places of a canary without memorisation, so many are at least as high."""
    for references in (1, 9, 50):
        rank = np.arange(1, references + 2)
        counted = [(rank <= one).mean() for one in rank]
        np.testing.assert_allclose(p_of_rank(rank - 1, 0 * rank, references), counted, rtol=1e-12)


@pytest.mark.parametrize("tied", range(1, 12))
def test_p_of_a_rank_is_valid_with_ties_at_the_top(tied: int) -> None:
    """Each of twelve exchangeable values is as likely to be the canary; so many are tied at the top."""
    loss = np.array([0] * tied + list(range(1, 13 - tied)))
    less = np.array([(loss < one).sum() for one in loss])
    ties = np.array([(loss == one).sum() - 1 for one in loss])
    p = p_of_rank(less, ties, 11)
    for level in (*np.unique(p), 0.05, 0.25, 0.5):
        assert (p <= level).mean() <= level + 1e-12
    mid_ranks = (1 + less + ties / 2) / 12
    level = mid_ranks.min()
    assert tied == 1 or (mid_ranks <= level).mean() > level, "what was wrong"


def test_p_of_right_and_wrong_is_that_of_fisher() -> None:
    values = np.array([1.0] * 14 + [0.0] * 2 + [1.0] * 3 + [0.0] * 13)[:, None]
    coins = (np.arange(32) < 16)[:, None]
    assert upper_p(values, coins)[0] == pytest.approx(hypergeom.sf(13, 32, 17, 16), rel=1e-9)


def test_p_of_many_runs_is_near_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (120, 3)).astype(np.float64)
    coins = rng.permuted(np.tile(np.arange(120) < 60, (3, 1)).T, axis=0)
    right = values.sum(0).astype(int)
    hits = (values * coins).sum(0).astype(int)
    exact = hypergeom.sf(hits - 1, 120, right, 60)
    np.testing.assert_allclose(upper_p(values, coins), exact, atol=0.01)


def test_missing_runs_do_not_count() -> None:
    values = np.array([[1.0], [math.nan], [0.0], [0.0], [1.0]])
    coins = np.array([[True], [False], [False], [False], [True]])
    kept = ~np.isnan(values[:, 0])
    assert upper_p(values, coins)[0] == upper_p(values[kept], coins[kept])[0] == pytest.approx(1 / 6)
    assert np.isnan(upper_p(values, np.ones((5, 1), dtype=bool))).all()


def test_without_memorisation_hardly_any_example_is_marked() -> None:
    """In 5 % of experiments at most, up to what 150 of them can tell; unadjusted it is almost all."""
    adjusted, raw = 0, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        # of two examples one has answers, the other has confidences: few values and many
        values = np.where(np.arange(40) % 2, rng.random((16, 40)), rng.random((16, 40)) < rng.random(40))
        coins = rng.permuted(np.tile(np.arange(16) < 8, (40, 1)).T, axis=0)
        p = upper_p(values, coins)
        adjusted += bool((adjust(p) <= 0.05).any())
        raw += bool((p <= 0.05).any())
    assert adjusted / 150 <= 0.08
    assert raw / 150 > 0.5


def test_intervals_of_the_selected_hold_their_values() -> None:
    """Of the ten highest of 200 scores: 95 % at the level of the selection; those of 95 % miss far more."""
    misses = {0.95: 0, level_of_selected(10, 200): 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rate = rng.uniform(0.1, 0.9, 200)
        inside, outside = (rng.binomial(16, rate) for _ in range(2))
        top = np.argsort(-(inside - outside), kind="stable")[:10]
        for level in misses:
            low, high = newcombe(inside[top], 16, outside[top], 16, level)
            misses[level] += int(((low > 0) | (high < 0)).sum())
    wide, narrow = misses[level_of_selected(10, 200)] / 600, misses[0.95] / 600
    assert wide <= 0.05
    assert narrow > 0.3
