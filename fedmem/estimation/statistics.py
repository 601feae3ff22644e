"""Means, intervals of small samples, and tests: numpy in, numpy out, no project type."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import ArrayLike

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray


def mean(values: FloatArray, axis: int) -> FloatArray:
    """The mean over what is not NaN; NaN, silently, where nothing is left.

    >>> mean(np.array([[1.0, np.nan], [3.0, np.nan]]), axis=0).tolist()
    [2.0, nan]
    """
    is_measured = ~np.isnan(values)
    return _ratio(np.where(is_measured, values, 0.0).sum(axis), is_measured.sum(axis))


def means_by_coin(values: FloatArray, is_in: BoolArray, runs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means of `values` (R, m) over the in and over the out runs of each example, for each weighting: two (B, m).

    NaN values do not count; an example that a weighting shows in no in (or out) run is NaN there.
    """
    is_measured = ~np.isnan(values)
    # Measured from one of the values, means of equal values are equal to the last bit, whatever the weights. It is a
    # middle one, since from a huge one nothing would be left of the others.
    place = np.maximum(is_measured.sum(0) - 1, 0) // 2
    middle = np.sort(values, axis=0)[place, np.arange(values.shape[1])]
    both = []
    for coin in (is_in & is_measured, ~is_in & is_measured):
        both.append(middle + _ratio(runs @ np.where(coin, values - middle, 0.0), runs @ coin.astype(np.float64)))
    return both[0], both[1]


def in_minus_out(values: FloatArray, is_in: BoolArray) -> FloatArray:
    """(m,) the mean of `values` (R, m) over the in runs of each example minus that over its out runs.

    NaN where a side has no value.

    >>> in_minus_out(np.array([[3.0], [1.0], [np.nan]]), np.array([[True], [False], [False]])).tolist()
    [2.0]
    """
    inside, outside = (side[0] for side in means_by_coin(values, is_in, np.ones((1, len(values)))))
    return np.asarray(inside - outside)


def wilson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Wilson's score interval of a proportion, elementwise; (0, 1) where there was no trial.

    >>> low, high = wilson(0, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.0, 0.278)
    """
    from scipy.special import ndtri

    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    z = float(ndtri((1 + level) / 2))
    share = np.where(n > 0, k / np.maximum(n, 1), 0.5)
    middle = (n * share + z * z / 2) / (n + z * z)
    half = z * np.sqrt(n * share * (1 - share) + z * z / 4) / (n + z * z)
    return np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)


def newcombe(
    successes: ArrayLike,
    trials: ArrayLike,
    control_successes: ArrayLike,
    control_trials: ArrayLike,
    level: float = 0.95,
) -> tuple[FloatArray, FloatArray]:
    """Interval of a difference of two independent proportions, elementwise (Newcombe, 1998, method 10).

    Keeps its level near 0 and 1 and for few trials. Where one side has no trial the difference is unknown: (-1, 1).

    >>> low, high = newcombe(56, 70, 48, 80)  # the example of the paper
    >>> round(float(low), 4), round(float(high), 4)
    (0.0524, 0.3339)
    """
    k1, n1, k2, n2 = (np.asarray(x, np.float64) for x in (successes, trials, control_successes, control_trials))
    (low1, high1), (low2, high2) = wilson(k1, n1, level), wilson(k2, n2, level)
    share1, share2 = k1 / np.maximum(n1, 1), k2 / np.maximum(n2, 1)
    is_defined, difference = (n1 > 0) & (n2 > 0), share1 - share2
    low = difference - np.hypot(share1 - low1, high2 - share2)
    high = difference + np.hypot(high1 - share1, share2 - low2)
    return np.where(is_defined, low, -1.0), np.where(is_defined, high, 1.0)


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion, never below its level (Clopper and Pearson, 1934); (0, 1) without trials.

    >>> low, high = clopper_pearson(0, 10)
    >>> low, round(high, 4)
    (0.0, 0.3085)
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


def student(values: FloatArray, others: FloatArray, level: float = 0.95) -> tuple[float, float, float]:
    """Difference of two means and its interval by Welch's t: (difference, low, high); NaN values do not count.

    Unequal variances are allowed (Welch, 1947). Without a value on one side the difference is NaN. There is no interval
    with a single value on a side, or without any spread except rounding on either. Values that are all alike are no
    certainty.

    >>> [round(end, 3) for end in student(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]))]
    [1.0, -1.267, 3.267]
    """
    first, second = (side[~np.isnan(side)] for side in (values, others))
    if not len(first) or not len(second):
        return math.nan, math.nan, math.nan
    gap = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2 or max(np.ptp(first), np.ptp(second)) <= 1e-12 * max(
        np.abs(first).max(), np.abs(second).max()
    ):
        return gap, math.nan, math.nan
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of equal values on one side, which have a spread of 0
        interval = ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return gap, float(interval.low), float(interval.high)


def student_mean(values: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean; NaN values do not count.

    (NaN, NaN) with fewer than two values, and where all are the same up to rounding, which is no certainty.

    >>> [round(end, 3) for end in student_mean(np.array([1.0, 2.0, 3.0]))]
    [-0.484, 4.484]
    """
    numbers = values[~np.isnan(values)]
    if len(numbers) < 2:
        return math.nan, math.nan
    middle = float(numbers.mean())
    return jackknife(middle, (numbers.sum() - numbers) / (len(numbers) - 1), level)


def student_columns(values: FloatArray, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """(m,) Student's t interval of the mean of each column of `values` (n, m); NaN values do not count.

    (NaN, NaN) with fewer than two values in a column, and where all are the same up to rounding.

    >>> [end.round(3).tolist() for end in student_columns(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))]
    [[-0.484, nan], [4.484, nan]]
    """
    from scipy.special import stdtrit

    middle, square, freedom = _means_with_errors(values)
    half = stdtrit(freedom, (1 + level) / 2) * np.sqrt(square)
    return middle - half, middle + half


def welch_columns(values: FloatArray, others: FloatArray, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """(m,) Welch's interval of the difference of the means of each column, (n, m) and (k, m); NaN values do not count.

    (NaN, NaN) where one of the two columns has no interval of its own.

    >>> [end.round(3).item() for end in welch_columns(np.array([[1.0], [2.0], [3.0]]), np.array([[0.0], [1.0], [2.0]]))]
    [-1.267, 3.267]
    """
    from scipy.special import stdtrit

    (middle, square, freedom), (other, other_square, other_freedom) = map(_means_with_errors, (values, others))
    total = square + other_square
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = total**2 / (square**2 / freedom + other_square**2 / other_freedom)
    half = stdtrit(joint, (1 + level) / 2) * np.sqrt(total)
    return middle - other - half, middle - other + half


def _means_with_errors(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(m,) each: means of columns, their squared standard errors, and degrees of freedom; NaN without a spread."""
    is_measured = ~np.isnan(values)
    n = is_measured.sum(0)
    middle = mean(values, axis=0)
    deviations = np.where(is_measured, values - middle, 0.0)
    spread = np.abs(deviations).max(0, initial=0.0) > 1e-12 * np.abs(np.where(is_measured, values, 0.0)).max(
        0, initial=0
    )
    known = (n > 1) & spread
    square = np.where(known, np.square(deviations).sum(0) / np.maximum(n * (n - 1), 1), np.nan)
    return middle, square, np.where(known, n - 1.0, np.nan)


def jackknife(value: float, without: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a value from what it would be without each of G clusters, with G − 1 degrees of freedom.

    The variance is (G − 1)/G × Σ (without − their mean)² (Tukey, 1958); of a mean over clusters it is the usual one.
    (NaN, NaN) with fewer than two clusters, where any of these is NaN, and where all are the same up to rounding.

    >>> values = np.array([1.0, 2.0, 3.0])
    >>> [round(end, 3) for end in jackknife(2.0, (values.sum() - values) / 2)]
    [-0.484, 4.484]
    """
    groups = len(without)
    if groups < 2 or np.isnan(without).any() or np.ptp(without) <= 1e-12 * np.abs(without).max():
        return math.nan, math.nan
    from scipy.special import stdtrit

    variance = (groups - 1) / groups * float(np.square(without - without.mean()).sum())
    half = float(stdtrit(groups - 1, (1 + level) / 2)) * math.sqrt(variance)
    return value - half, value + half


def fisher_exact(total: int, num_in: int) -> FloatArray:
    """Two-sided p of Fisher's exact test for every table: (total + 1, num_in + 1).

    Of `total` runs `num_in` are in; entry [k, x] belongs to k successes, x of them in. It is the share of all ways to
    choose the runs that give a table as improbable or more so. It is exact where coins were dealt, whatever the
    outcomes.

    >>> fisher_exact(8, 4)[4, 4].round(4).item()  # 2 of 70 ways
    0.0286
    """
    from scipy.stats import hypergeom

    successes, inside = np.arange(total + 1)[:, None], np.arange(num_in + 1)[None]
    mass = np.asarray(hypergeom.pmf(inside, total, successes, num_in))
    as_rare = mass[:, None, :] <= mass[:, :, None] * (1 + 1e-9)
    return np.asarray(np.where(as_rare, mass[:, None, :], 0.0).sum(2)).clip(max=1.0)


def rank_sum_exact(total: int, num_in: int) -> FloatArray:
    """Two-sided p of the rank sum test (Wilcoxon, 1945) for each value of U, from 0 to num_in × (total − num_in).

    U counts the pairs in which the run that is in is above the run that is out. The p is the share of all ways to
    choose the runs that are as far from the middle, by counting. Above 200 runs it is normal with the exact variance.

    >>> rank_sum_exact(4, 2).round(3).tolist()
    [0.333, 0.667, 1.0, 0.667, 0.333]
    """
    pairs = num_in * (total - num_in)
    if total > 200:
        from scipy.special import ndtr

        away = np.abs(np.arange(pairs + 1) - pairs / 2)
        return np.asarray(2 * ndtr(-(away - 0.5) / math.sqrt(pairs * (total + 1) / 12))).clip(max=1.0)
    # ways[c, s]: how many sets of c ranks have the sum s
    ways = np.zeros((num_in + 1, total * (total + 1) // 2 + 1))
    ways[0, 0] = 1.0
    for rank in range(1, total + 1):
        ways[1:, rank:] = ways[1:, rank:] + ways[:-1, :-rank]
    min_sum = num_in * (num_in + 1) // 2
    mass = ways[num_in, min_sum : min_sum + pairs + 1] / math.comb(total, num_in)
    tail = np.cumsum(mass)
    return np.asarray(2 * np.minimum(tail, tail[::-1])).clip(max=1.0)


def benjamini_hochberg(p: FloatArray, rate: float) -> BoolArray:
    """Which of these hypotheses are rejected so that at most a share `rate` of the rejections is expected to be wrong.

    Rejects the k smallest p for the largest k with p_(k) <= rate × k / n (Benjamini and Hochberg, 1995). It holds its
    rate under independence and positive dependence. NaN is never rejected and does not count.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.5, 0.02]), 0.05).tolist()
    [True, False, False, True]
    """
    from scipy.stats import false_discovery_control

    rejected = ~np.isnan(p)
    if rejected.any():
        rejected[rejected] = false_discovery_control(p[rejected]) <= rate
    return rejected


def _ratio(numerator: FloatArray, denominator: FloatArray | IntArray) -> FloatArray:
    """Elementwise quotient, NaN where the denominator is zero."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)


def holm(p_values: ArrayLike) -> FloatArray:
    """Adjusted p, which keep the probability of any wrong rejection below the level, for any dependence of the tests.

    The k-th smallest of m is multiplied by m − k + 1, and none is smaller than one before it (Holm, 1979). NaN stays
    NaN and does not count.

    >>> holm(np.array([0.01, 0.04, 0.03, np.nan])).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    p = np.asarray(p_values, dtype=np.float64)
    places = np.flatnonzero(~np.isnan(p))
    order = places[np.argsort(p[places], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
