"""Tests of `fedmem/privacy/epsilon_estimates.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, ttest_ind

from fedmem.contracts.arrays import FloatArray
from fedmem.errors import ComponentError
from fedmem.privacy.accounting import gaussian_epsilon
from fedmem.privacy.epsilon_bounds import (
    AuditedUnit,
    alarm,
)
from fedmem.privacy.epsilon_estimates import gaussian_estimate, normal_epsilon, one_shot, two_shots
from fedmem.privacy.guarantee import Guarantee
from tests.privacy.epsilon_bounds_helpers import RECORD


def test_normal_estimate() -> None:
    """Rates of a Gaussian with mu = 1 give its epsilon; equal rates give none; perfect ones stay finite."""
    found = gaussian_estimate(int(1e6 * norm.cdf(1)), 10**6, 5 * 10**5, 10**6, audited=RECORD, delta=1e-5)
    assert found.epsilon == pytest.approx(gaussian_epsilon(1.0, 1e-5), rel=0.01)
    assert found.low < found.epsilon < found.high
    assert found.claim == "estimate"
    assert gaussian_estimate(10, 100, 20, 100, audited=RECORD, delta=1e-5).epsilon == 0
    perfect = gaussian_estimate(100, 100, 0, 100, audited=RECORD, delta=1e-5)
    assert perfect.epsilon == perfect.ceiling < math.inf
    assert perfect.high == math.inf
    assert gaussian_estimate(0, 0, 0, 0, audited=RECORD, delta=1e-5).low == 0


@pytest.mark.parametrize(("mean", "spread"), [(1.0, 1.0), (0.5, 1.3), (2.0, 0.8), (0.0, 1.5), (0.0, 1.0)])
def test_two_normals_by_integration(mean: float, spread: float) -> None:
    delta = 1e-3
    epsilon = normal_epsilon(mean, spread, delta)
    x = np.linspace(-30, 30, 600_001)
    p, q = norm.pdf(x, mean, spread), norm.pdf(x)
    both = [float(np.maximum(a - math.exp(epsilon) * b, 0).sum() * (x[1] - x[0])) for a, b in ((p, q), (q, p))]
    if epsilon:
        assert max(both) == pytest.approx(delta, rel=1e-3)
    else:
        assert max(both) <= delta


def test_one_shot_of_a_gaussian_sum() -> None:
    """k canaries of length S among others, noise z S in d dimensions."""
    rng = np.random.default_rng(0)
    d, k, z = 4000, 500, 2.0
    canaries = rng.standard_normal((k, d))
    canaries /= np.linalg.norm(canaries, axis=1, keepdims=True)
    released = canaries.sum(0) + z * rng.standard_normal(d)
    # a sum of k directions is noise to each of them, on top of z
    total = math.sqrt(z**2 + (k - 1) / d)
    cosines = canaries @ released / np.linalg.norm(released)
    found = one_shot(cosines, d, audited=AuditedUnit(unit="client", adjacency="add_remove"), delta=1e-5)
    assert found.low < gaussian_epsilon(1 / total, 1e-5) < found.high
    assert found.claim == "estimate"
    assert not alarm(found, Guarantee(epsilon=0.0, delta=1e-5))
    nothing = one_shot(rng.standard_normal(500) / math.sqrt(d), d, audited=RECORD, delta=1e-5)
    assert nothing.low == 0
    for short, dimension in ((cosines[:1], d), (cosines, 50)):
        with pytest.raises(ComponentError, match="use at least 2"):
            one_shot(short, dimension, audited=RECORD, delta=1e-5)


def spread_about(mean: float, spread: float, count: int) -> FloatArray:
    """Numbers whose mean and standard deviation, with count - 1 degrees of freedom, are exactly these."""
    drawn = np.random.default_rng(count).normal(size=count)
    out: FloatArray = mean + spread * (drawn - drawn.mean()) / drawn.std(ddof=1)
    return out


@pytest.mark.parametrize("count", [2, 3, 20])
def test_canaries_one_deviation_away_show_gaussian_epsilon(count: int) -> None:
    """N(1, 1) against N(0, 1) at delta 1e-5 is 4.38, however few canaries give just this mean and spread."""
    alone = one_shot(spread_about(1.0, 1.0, count) / 20, 400, audited=RECORD, delta=1e-5)
    fresh = spread_about(0.2, 0.05, 2 * count)
    beside = two_shots(spread_about(0.25, 0.05, count), fresh, audited=RECORD, delta=1e-5)
    for found in (alone, beside):
        assert found.epsilon == pytest.approx(gaussian_epsilon(1.0, 1e-5), abs=1e-3)
        assert found.low <= found.epsilon <= found.high
        assert (found.trials, found.claim) == (count, "estimate")
    # turned round, the canaries lie below what is by chance, which is no reason for an epsilon
    below = two_shots(spread_about(0.15, 0.05, 200), spread_about(0.2, 0.05, 200), audited=RECORD, delta=1e-5)
    assert below.epsilon == pytest.approx(0.0, abs=1e-3)


def test_few_fresh_directions_make_the_ends_uncertain() -> None:
    """The mean of chance is known from them alone: its error counts beside that of the canaries, as in Welch's test."""
    inside = spread_about(1.0, 1.0, 4000)
    for count in (40, 4000):
        outside = spread_about(0.0, 1.0, count)
        found = two_shots(inside / 10, outside / 10, audited=RECORD, delta=1e-5)
        test = ttest_ind(inside, outside, equal_var=False)
        off, wide = 2 / test.statistic, 2 * math.sqrt(1 / (2 * 4000 - 2) + 1 / (2 * count - 2))
        most = max(normal_epsilon(1 + off, spread, 1e-5) for spread in (1 - wide, 1 + wide))
        assert found.high == pytest.approx(most, rel=1e-3)
        # at equal spreads epsilon is the smallest
        assert found.low == pytest.approx(normal_epsilon(1 - off, 1.0, 1e-5), rel=1e-3)
