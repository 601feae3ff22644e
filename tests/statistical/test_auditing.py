"""Audits of mechanisms whose epsilon is known: bounds hold as often as they say, and not for a smaller epsilon."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from fedmem.privacy.accounting import gaussian_epsilon
from fedmem.privacy.epsilon_bounds import (
    AuditedUnit,
    Counts,
    epsilon_by_split,
    epsilon_of_counts,
    epsilon_over_thresholds,
    guess,
    one_run,
)
from fedmem.privacy.epsilon_estimates import one_shot

pytestmark = pytest.mark.statistical

RECORD = AuditedUnit(unit="record", adjacency="add_remove")
REPEATS = 400


@cache
def by_counts(hits: int, inside: int, false_alarms: int, outside: int, delta: float, thresholds: int = 1) -> float:
    found = epsilon_of_counts(
        Counts(hits, inside, false_alarms, outside), audited=RECORD, delta=delta, thresholds=thresholds
    )
    return found.epsilon


@cache
def by_one_run(right: int, guesses: int, canaries: int, delta: float) -> float:
    return one_run(right, guesses, canaries, audited=RECORD, delta=delta).epsilon


@pytest.mark.parametrize("z", [0.5, 1.0, 3.0])
def test_a_gaussian_release_at_a_declared_threshold(z: float) -> None:
    rng = np.random.default_rng(0)
    delta, n = 1e-5, 2000
    hits = (rng.normal(1, z, (REPEATS, n)) > 1 + z).sum(1)
    false_alarms = (rng.normal(0, z, (REPEATS, n)) > 1 + z).sum(1)
    found = np.array([by_counts(*pair, n, delta) for pair in zip(hits, [n] * REPEATS, false_alarms, strict=True)])
    assert (found > gaussian_epsilon(1 / z, delta)).mean() <= 0.05
    assert found.mean() > 0.1
    assert (found > 0.1 * gaussian_epsilon(1 / z, delta)).mean() > 0.5


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_is_tight(epsilon: float) -> None:
    """Its epsilon is reached by the test that believes it: bounds are below in 95 %, and a tenth less is refuted."""
    rng = np.random.default_rng(1)
    n, told = 20_000, math.exp(epsilon) / (1 + math.exp(epsilon))
    hits, false_alarms = rng.binomial(n, told, REPEATS), rng.binomial(n, 1 - told, REPEATS)
    found = np.array([by_counts(int(a), n, int(b), n, 0.0) for a, b in zip(hits, false_alarms, strict=True)])
    assert (found > epsilon).mean() <= 0.05
    assert (found > 0.85 * epsilon).mean() > 0.9


def test_one_run_of_randomised_response_is_tight() -> None:
    rng = np.random.default_rng(2)
    epsilon, m = 1.0, 1000
    told = math.exp(epsilon) / (1 + math.exp(epsilon))
    right = rng.binomial(m, told, REPEATS)
    found = np.array([by_one_run(int(v), m, m, 0.0) for v in right])
    share = (found > epsilon).mean()
    assert 0.01 < share <= 0.06
    assert (found > 0.7 * epsilon).mean() > 0.8


def test_one_run_of_gaussian_sums() -> None:
    rng = np.random.default_rng(3)
    z, m, delta, guesses = 1.0, 1000, 1e-6, 100
    found = []
    for _ in range(REPEATS):
        is_in = rng.random(m) < 0.5
        right = guess(is_in + z * rng.standard_normal(m), is_in, guesses, rng)
        found.append(by_one_run(right, guesses, m, delta))
    assert (np.array(found) > gaussian_epsilon(1 / z, delta)).mean() <= 0.05
    assert np.mean(found) > 1


def test_a_mechanism_that_betrays_a_whole_run() -> None:
    """Epsilon 0 at delta .02: with that probability every canary is told. Pooled counts are no bound, one run's is."""
    rng = np.random.default_rng(4)
    delta, canaries, runs, repeats = 0.02, 200, 20, 200
    pooled = single = 0
    for _ in range(repeats):
        is_in = rng.random((runs, canaries)) < 0.5
        betrayed = rng.random(runs) < delta
        scores = np.where(betrayed[:, None], 2.0 * is_in - 1, 0.0)
        said_in = scores > 0
        pooled += by_counts(int((said_in & is_in).sum()), int(is_in.sum()), 0, int((~is_in).sum()), delta) > 0
        right = guess(scores[0], is_in[0], 10, rng)
        single += by_one_run(right, 10, canaries, delta) > 0
    assert pooled / repeats > 0.2
    assert single / repeats <= 0.05


def test_best_threshold_on_the_same_scores_is_biased() -> None:
    rng = np.random.default_rng(5)
    n, repeats = 300, 120
    grid = np.linspace(-3, 3, 31)
    best, bonferroni, split = [], [], []
    for _ in range(repeats):
        inside, outside = rng.standard_normal((2, n))
        tpr = np.maximum((inside[:, None] > grid).mean(0), 1e-12)
        fpr = np.maximum((outside[:, None] > grid).mean(0), 1 / n)
        best.append(np.log(tpr / fpr).max())
        bonferroni.append(epsilon_over_thresholds(inside, outside, grid[::5], audited=RECORD, delta=0.0).epsilon > 0)
        split.append(epsilon_by_split(inside[:40], outside[:40], rng, audited=RECORD, delta=0.0).epsilon > 0)
    assert np.mean(best) > 0.3
    assert np.mean(bonferroni) <= 0.05
    assert np.mean(split) <= 0.05


@pytest.mark.parametrize("z", [0.5, 1.0])
def test_random_directions_in_one_gaussian_sum(z: float) -> None:
    """What canaries show of a plain sum, on average over sums: within a tenth of the exact epsilon."""
    rng = np.random.default_rng(6)
    d, canaries = 10_000, 4000
    shown = rng.normal(1 / z, 1.0, (20, canaries)) / math.sqrt(d)
    found = [one_shot(cosines, d, audited=RECORD, delta=1e-5) for cosines in shown]
    exact = gaussian_epsilon(1 / z, 1e-5)
    assert np.mean([one.epsilon for one in found]) == pytest.approx(exact, rel=0.1)
    assert np.mean([one.low <= exact <= one.high for one in found]) >= 0.9
