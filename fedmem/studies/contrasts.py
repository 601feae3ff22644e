"""Settings against a reference over seeds: paired differences, their adjustment, power, and retention as a ratio.

A seed is a replicate: it draws data, coins, canaries, weights and noise, and all settings of one seed share them. So
differences are taken within seeds. Their intervals and tests have as many degrees of freedom as there are seeds,
minus one. All values are those of whole banks, means over many runs and examples, so that Student's t fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.two_way import MIN_LOWER_END

LEVEL = 0.05
"""The largest chance of any wrong call, over all differences of one family."""

POWER = 0.8
"""The chance with which a difference as large as the smallest detectable one is found."""

ENOUGH_SEEDS = 5
"""From so many seeds up, verdicts carry no warning: intervals of fewer depend on normal differences too much."""

MAX_SEEDS = 1000
"""Seeds that are asked for at most; beyond, a difference counts as too small to be found."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over n seeds with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A difference to the reference over n seeds that both have: with its 95 % interval, and p for no difference.

    `sd` is the standard deviation of the differences of single seeds. NaN where it cannot be known: fewer than two
    seeds, or differences that are all equal, which are no certainty.
    """

    value: float
    low: float
    high: float
    p: float
    sd: float
    n: int

    @property
    def is_identical(self) -> bool:
        """Whether no seed shows any difference."""
        return self.n > 0 and self.value == 0 and self.sd == 0


def mean_of(values: FloatArray) -> Mean:
    """The mean and Student's interval over seeds; NaN values do not count.

    >>> mean = mean_of(np.array([1.0, 2.0, 3.0, np.nan]))
    >>> round(mean.low, 3), mean.value, round(mean.high, 3), mean.n
    (-0.484, 2.0, 4.484, 3)
    """
    difference = contrast(values, np.zeros(len(values)))
    return Mean(value=difference.value, low=difference.low, high=difference.high, n=difference.n)


Estimate = TypeVar("Estimate", Mean, Contrast)


def bound_interval(estimate: Estimate, min_value: float, max_value: float) -> Estimate:
    """The same with an interval that holds nothing impossible.

    >>> bound_interval(Mean(value=0.9, low=0.7, high=1.1, n=3), 0.0, 1.0).high
    1.0
    """
    low, high = (
        min(max(end, min_value), max_value) if not math.isnan(end) else end for end in (estimate.low, estimate.high)
    )
    return replace(estimate, low=low, high=high)


def differences_of(values: FloatArray, reference: FloatArray) -> FloatArray:
    """Values − reference, of one shape; 0 where they differ by rounding only, and NaN where either is NaN.

    >>> differences_of(np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.25])).tolist()
    [0.0, 0.25]
    """
    differences = values - reference
    is_rounding = np.abs(differences) <= 1e-12 * np.maximum(np.abs(values), np.abs(reference))
    return np.where(is_rounding & np.isfinite(differences), 0.0, differences)


def contrast(values: FloatArray, reference: FloatArray) -> Contrast:
    """The paired difference, values − reference, seed by seed (S,); seeds that lack either do not count.

    Two-sided p of the paired t test (Student, 1908). Rounding is no difference (`differences_of`), and differences
    that scatter by rounding of the values only have neither an interval nor a p.

    >>> difference = contrast(np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0]))
    >>> round(difference.value, 3), round(difference.p, 4), difference.n
    (1.333, 0.0572, 3)
    """
    from scipy.stats import ttest_1samp

    differences = differences_of(values, reference)
    is_complete = ~np.isnan(differences)
    differences = differences[is_complete]
    n = len(differences)
    value = float(differences.mean()) if n else math.nan
    if n < 2:
        return Contrast(value=value, low=math.nan, high=math.nan, p=math.nan, sd=math.nan, n=n)
    sd = float(differences.std(ddof=1))
    if not sd > 1e-12 * np.abs([values[is_complete], reference[is_complete]]).max():
        return Contrast(value=value, low=math.nan, high=math.nan, p=math.nan, sd=0.0, n=n)
    test = ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(0.95)
    return Contrast(value=value, low=float(interval.low), high=float(interval.high), p=float(test.pvalue), sd=sd, n=n)


def simultaneous(estimate: Contrast, tests: int) -> Contrast:
    """One of so many differences with its simultaneous interval and adjusted p (Bonferroni; Dunn, 1961).

    The interval is the t interval at the level 1 − LEVEL / tests, and p is multiplied by the number of tests.
    Guarantees:

    - the interval excludes 0 exactly where the adjusted p is below LEVEL;
    - the chance that any of the intervals misses its difference is at most LEVEL, for any dependence of the tests.

    >>> difference = contrast(np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0]))
    >>> wide = simultaneous(difference, 4)
    >>> round(difference.low, 2), round(wide.low, 2), round(wide.p, 3)
    (-0.1, -1.62, 0.229)
    """
    if math.isnan(estimate.p):
        return estimate
    from scipy.special import stdtrit

    half = float(stdtrit(estimate.n - 1, 1 - LEVEL / (2 * tests))) * estimate.sd / math.sqrt(estimate.n)
    return replace(estimate, low=estimate.value - half, high=estimate.value + half, p=min(1.0, estimate.p * tests))


def verdict_of(difference: Contrast, adjusted: Contrast) -> str:
    """`identical`, `undefined`, `higher`, `lower` or `not significant`; `adjusted` is the simultaneous interval.

    >>> one = contrast(np.array([2.0, 3.0, 4.0]), np.zeros(3))
    >>> verdict_of(one, one), verdict_of(one, simultaneous(one, 100))
    ('higher', 'not significant')
    """
    if difference.is_identical:
        return "identical"
    if math.isnan(adjusted.low):
        return "undefined"
    if adjusted.low > 0 or adjusted.high < 0:
        return "higher" if adjusted.value > 0 else "lower"
    return "not significant"


def detectable_difference(sd: float, n: int, tests: int = 1) -> float:
    """The smallest difference that n seeds find with 80 % chance, where single seeds scatter by `sd`.

    At the level of one of so many tests, LEVEL / tests, by the noncentral t distribution. NaN
    where the scatter is not known.

    >>> round(detectable_difference(1.0, 10), 2), round(detectable_difference(1.0, 40), 2)
    (1.0, 0.45)
    """
    if n < 2 or not sd > 0:
        return math.nan
    return _noncentrality(n, LEVEL / tests) * sd / math.sqrt(n)


def seeds_for(difference: float, sd: float, tests: int = 1) -> int:
    """How many seeds find such a difference with 80 % chance; 0 where that is more than MAX_SEEDS or not known.

    >>> seeds_for(1.0, 1.0), seeds_for(0.001, 1.0)
    (10, 0)
    """
    if not (sd > 0 and abs(difference) > 0) or detectable_difference(sd, MAX_SEEDS, tests) > abs(difference):
        return 0
    low, high = 1, MAX_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        if middle > 1 and detectable_difference(sd, middle, tests) <= abs(difference):
            high = middle
        else:
            low = middle
    return high


@cache
def _noncentrality(n: int, level: float) -> float:
    """The mean, in standard errors, at which a two-sided t test of this level rejects with chance POWER."""
    from scipy.optimize import brentq
    from scipy.special import chdtri, nctdtr, stdtrit

    critical = float(stdtrit(n - 1, 1 - level / 2))
    if critical > 1000:
        # so far out that only the scatter of the standard error counts, and that nctdtr has no answer
        return critical * math.sqrt(float(chdtri(n - 1, 1 - POWER)) / (n - 1))

    def power_gap(shift: float) -> float:
        # the other tail adds less than the level itself, and nothing where power is high
        return float(1 - nctdtr(n - 1, shift, critical)) - POWER

    root: float = brentq(power_gap, 0.0, 2 * critical + 10)
    return root


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The retained share of an effect over n seeds, with its 95 % interval; NaN if there is no effect."""

    value: float
    low: float
    high: float
    n: int


def is_above_zero(local: FloatArray, weights: FloatArray) -> bool:
    """Whether the weighted mean of effects over seeds (S,) is significantly above zero, by its own interval.

    It is the mean whose scatter counts, not that of the sums: seeds that have more examples than others are no scatter
    of the effect. Effects that are all equal have no interval, and are not above zero in this sense.

    >>> is_above_zero(np.array([1.0, 1.1, 0.9]), np.array([64, 56, 64]))
    True
    >>> is_above_zero(np.array([1.0, -1.1]), np.ones(2))
    False
    """
    return _base(np.array([local, local]), weights) is not None


def is_divisible(local: FloatArray, weights: FloatArray) -> bool:
    """Whether effects are far enough above zero to divide by: the interval of their mean ends above a tenth of it.

    Fieller's interval of a ratio widens with t² var / mean², so the nearer the mean is to zero. Where this reaches 1,
    the interval has no bounds. Effects that are `is_above_zero` and fail here would give intervals over tens.

    >>> is_divisible(np.array([1.0, 1.1, 0.9]), np.ones(3)), is_divisible(np.array([1.0, 2.1, 1.4]), np.ones(3))
    (True, False)
    """
    base = _base(np.array([local, local]), weights)
    if base is None:
        return False
    (_, mean), (_, _, variance), t2 = base
    return mean - math.sqrt(t2 * variance) >= MIN_LOWER_END * mean


def why_undefined(local: FloatArray, weights: FloatArray) -> str:
    """Why effects over seeds (S,) are not `is_above_zero`, or not `is_divisible`; empty where they are.

    >>> why_undefined(np.array([0.2, 0.2]), np.ones(2))
    'the effect at the owning client is the same in all seeds, and has no interval'
    >>> why_undefined(np.array([1.0, -1.1]), np.ones(2))
    'the effect at the owning client is not significantly above 0'
    """
    if is_above_zero(local, weights):
        return "" if is_divisible(local, weights) else HARDLY_ABOVE
    effects = local[~np.isnan(local) & (weights > 0)]
    if len(effects) < 2:
        seeds = "one seed has" if len(effects) else "no seed has"
        return f"{seeds} an effect at the owning client, and an interval requires two"
    if not np.ptp(effects) > 1e-12 * np.abs(effects).max():
        if not effects.any():
            return "the effect at the owning client is 0 in all seeds"
        return "the effect at the owning client is the same in all seeds, and has no interval"
    return "the effect at the owning client is not significantly above 0"


HARDLY_ABOVE = "the interval of the effect at the owning client comes within a tenth of the effect of 0"
"""Why a ratio is not shown although the effect is significant."""


def retention_ratio(whole: FloatArray, local: FloatArray, weights: FloatArray | None = None) -> Ratio:
    """Σ n · whole / Σ n · local over seeds (S,), effects above what no memorisation gives, with Fieller's interval.

    Args:
        whole: The mean effect at the aggregate in each seed.
        local: The mean effect at the owning client in each seed, over the same examples.
        weights: The number n of examples that each seed's means are over; left out, as many in each.

    - a ratio of sums over all examples, never a mean of ratios, which small denominators would pull anywhere;
    - NaN where `local` is not `is_above_zero`: then there is nothing to keep;
    - the interval is exact for normal means of equal weights (Fieller, 1954), and not symmetric.

    >>> ratio = retention_ratio(np.array([1.0, 1.2, 0.9]), np.array([2.0, 2.1, 1.9]))
    >>> round(ratio.low, 3), round(ratio.value, 3), round(ratio.high, 3)
    (0.372, 0.517, 0.63)
    """
    weights = np.ones(len(local)) if weights is None else weights
    is_complete = ~np.isnan(np.array([whole, local, weights])).any(axis=0)
    n, base = int(is_complete.sum()), _base(np.array([whole, local]), weights)
    if base is None:
        return Ratio(value=math.nan, low=math.nan, high=math.nan, n=n)
    (a, b), (xx, xy, yy), t2 = base
    # the roots of (a − ρ b)² = t² var(a − ρ b); the leading coefficient is positive, since b is significant
    quadratic, linear, constant = b * b - t2 * yy, a * b - t2 * xy, a * a - t2 * xx
    half = math.sqrt(max(linear * linear - quadratic * constant, 0.0))
    return Ratio(value=a / b, low=(linear - half) / quadratic, high=(linear + half) / quadratic, n=n)


def _base(
    effects: FloatArray, weights: FloatArray
) -> tuple[tuple[float, float], tuple[float, float, float], float] | None:
    """Weighted means of both rows, their variances and covariance, and t²; None where the second is not significant."""
    from scipy.special import stdtrit

    is_complete = ~np.isnan(effects).any(axis=0) & (weights > 0)
    effects, weights = effects[:, is_complete], weights[is_complete]
    n = effects.shape[1]
    if n < 2:
        return None
    weights = weights / weights.mean()
    a, b = (float(mean) for mean in (weights * effects).mean(axis=1))
    (xx, xy), (_, yy) = (np.cov(weights * (effects - [[a], [b]])) / n).tolist()
    t2 = float(stdtrit(n - 1, 0.975)) ** 2
    is_constant = math.sqrt(yy * n) <= 1e-12 * float(np.abs(effects[1]).max())
    return None if is_constant or not b > math.sqrt(t2 * yy) else ((a, b), (xx, xy, yy), t2)


def find_dominating(use: FloatArray, harm: FloatArray) -> list[int]:
    """For each point one that is no worse in both and better in one: more use, less harm; −1 where there is none.

    Among several, it is the one with the most use, then the least harm, then the first. NaN neither dominates nor is
    dominated.

    >>> find_dominating(np.array([0.9, 0.8, 0.95]), np.array([1.0, 2.0, 3.0]))
    [-1, 0, -1]
    """
    dominators = []
    for i in range(len(use)):
        better = [
            j
            for j in range(len(use))
            if use[j] >= use[i] and harm[j] <= harm[i] and (use[j] > use[i] or harm[j] < harm[i])
        ]
        dominators.append(min(better, key=lambda j: (-use[j], harm[j], j), default=-1))
    return dominators
