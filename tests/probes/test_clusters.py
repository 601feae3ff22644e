"""Tests of `fedmem/probes/_clusters.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmem.probes._clusters import difference_interval, mean_interval


def test_cluster_interval_is_students_for_singles_and_widens() -> None:
    from scipy.stats import t

    values = np.random.default_rng(0).normal(size=12)
    low, high = mean_interval(values, range(12))
    expected = t.interval(0.95, 11, loc=values.mean(), scale=values.std(ddof=1) / math.sqrt(12))
    assert (low, high) == pytest.approx(expected)
    doubled = mean_interval(np.repeat(values, 5), np.repeat(np.arange(12), 5).tolist())
    assert doubled == pytest.approx((low, high)), "five equal values in a cluster are worth one"
    assert np.isnan(mean_interval(np.array([2.0, 2.0]), [0, 1])).all(), "two equal values are no certainty"
    assert np.isnan(mean_interval(np.full(3, 0.1), [0, 1, 2])).all(), "nor are they by rounding"
    one_way, other = mean_interval(values, range(12)), mean_interval(values, [0] * 6 + [1] * 6)
    nested = max(one_way, other, key=lambda ends: ends[1] - ends[0])
    assert mean_interval(values, range(12), [0] * 6 + [1] * 6) == pytest.approx(nested)
    assert mean_interval(values, range(12), [0] * 12) == one_way, "a single cluster has nothing to say"


def test_intervals_cover_the_mean_where_owners_and_runs_vary() -> None:
    """The wider of the two ways alone held it in 90 of 100."""
    from itertools import product

    rng = np.random.default_rng(0)
    pairs = list(product(range(16), range(20)))
    runs, owners = [run for run, _ in pairs], [owner for _, owner in pairs]
    held = []
    for _ in range(400):
        of_run, of_holder = rng.normal(size=16), rng.normal(size=20)
        values = of_run[runs] + of_holder[owners] + rng.normal(size=len(pairs))
        both = mean_interval(values, owners, runs)
        ways = [mean_interval(values, owners), mean_interval(values, runs)]
        assert both[0] <= min(low for low, _ in ways)
        assert both[1] >= max(high for _, high in ways)
        held.append(both[0] <= 0 <= both[1])
    assert 0.92 <= np.mean(held) <= 0.98


def test_difference_interval_is_welchs_and_removes_shared_parts() -> None:
    from scipy.stats import t

    rng = np.random.default_rng(0)
    first, second = rng.normal(size=7), rng.normal(size=5)
    residuals = np.concatenate([(first - first.mean()) / 7, (second - second.mean()) / 5])
    half = t.ppf(0.975, 11) * math.sqrt(12 / 11 * np.square(residuals).sum())
    middle = first.mean() - second.mean()
    expected = pytest.approx((middle - half, middle + half))
    assert difference_interval(first, second, (range(7), range(7, 12))) == expected
    shared = rng.normal(size=8) * 100
    noise = rng.normal(size=(2, 8))
    paired = difference_interval(shared + noise[0], shared + noise[1], (range(8), range(8)))
    apart = difference_interval(shared + noise[0], shared + noise[1], (range(8), range(8, 16)))
    assert paired[1] - paired[0] < (apart[1] - apart[0]) / 10
    assert all(math.isnan(end) for end in difference_interval(first, second, ([0] * 7, [0] * 5)))
    assert all(math.isnan(end) for end in difference_interval(shared, shared - 1, (range(8), range(8))))
    assert all(math.isnan(end) for end in mean_interval(np.array([1.0, math.nan]), [0, 1]))
