"""Intervals of means, and of differences between means, whose values come in clusters.

Clusters are clients and runs. The same example attacked in another round is no new example. The wider interval of the
two ways alone covered the truth in 87 to 91 % of simulations where both vary equally. So both variances are added.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import Measurement, Reading


def mean_over_runs(
    rows: Sequence[Measurement], metric: str, subject: str = "", bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Reading:
    """The mean of rows of single runs, with `mean_interval` over runs kept within bounds; rows of NaN do not count."""
    finite_rows = [row for row in rows if not math.isnan(row.reading.value)]
    if not finite_rows:
        return Reading(metric=metric, value=math.nan, n=0, subject=subject)
    values = np.array([row.reading.value for row in finite_rows])
    low, high = (float(np.clip(end, *bounds)) for end in mean_interval(values, [row.run for row in finite_rows]))
    return Reading(metric=metric, value=float(values.mean()), low=low, high=high, n=len(finite_rows), subject=subject)


def mean_interval(values: FloatArray, *ways: Sequence[Hashable], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of n values in G clusters, with the spread taken between clusters.

    With residual sums `e_g` the variance is `G / (G - 1) * sum e_g^2 / n^2`, and t has G - 1 degrees of freedom. Probes
    often see only a handful of clusters, where percentile bootstrap intervals are too narrow.

    The same values may be clustered in two `ways` (by client, by run). Then the squares of the half-widths add up,
    minus the square for clusters that are alike in both ways. Each way counts that square (Cameron, Gelbach and Miller,
    2011). The interval is never narrower than that of either way. A way with one cluster does not count. Without any
    way the interval is (NaN, NaN). So it is if any value is NaN, and if all values are alike, which is no certainty.

    >>> [round(end, 3) for end in mean_interval(np.array([1.0, 2.0, 3.0]), ["a", "b", "c"])]
    [-0.484, 4.484]
    >>> mean_interval(np.array([1.0, 2.0, 3.0]), ["a", "a", "a"])
    (nan, nan)
    """
    middle = float(values.mean())
    return interval_around(middle, (values - middle) / len(values), ways, level)


def difference_interval(
    ins: FloatArray,
    outs: FloatArray,
    *ways: tuple[Sequence[Hashable], Sequence[Hashable]],
    level: float = 0.95,
) -> tuple[float, float]:
    """Student's t interval of mean(ins) - mean(outs), where both may have values in the same cluster.

    Each way gives the clusters of the ins and of the outs. By linearisation a cluster contributes
    `e_g = sum_in (x - mean_in) / n_in - sum_out (x - mean_out) / n_out`; the variance is `G / (G - 1) * sum e_g^2`, so
    that what a cluster adds to both sides cancels. All else is as in `mean_interval`.

    >>> ins, outs = np.array([2.0, 5.0, 9.0]), np.array([1.0, 4.0, 8.3])
    >>> [round(end, 3) for end in difference_interval(ins, outs, (["a", "b", "c"], ["a", "b", "c"]))]
    [0.47, 1.33]
    >>> difference_interval(ins, ins - 1, (["a", "b", "c"], ["a", "b", "c"]))  # the same in each: no certainty
    (nan, nan)
    """
    first, second = float(ins.mean()), float(outs.mean())
    residuals = np.concatenate([(ins - first) / len(ins), (second - outs) / len(outs)])
    return interval_around(first - second, residuals, [[*of_ins, *of_outs] for of_ins, of_outs in ways], level)


def interval_around(
    middle: float, residuals: FloatArray, ways: Sequence[Sequence[Hashable]], level: float
) -> tuple[float, float]:
    """The interval around `middle` from all ways together; what each value contributes is its residual."""
    squares = [_square(residuals, clusters, level) for clusters in ways if len(set(clusters)) > 1]
    # NaN does not compare, so that one residual of NaN has to be looked for.
    if not squares or np.isnan(residuals).any():
        return math.nan, math.nan
    twice = _square(residuals, list(zip(*ways, strict=True)), level)
    half = math.sqrt(max(*squares, sum(squares) - (len(squares) - 1) * twice))
    if not half > 1e-12 * abs(middle):
        half = math.nan
    return middle - half, middle + half


def _square(residuals: FloatArray, clusters: Sequence[Hashable], level: float) -> float:
    """The square of the half-width for one way to cluster, into two clusters or more."""
    from scipy.special import stdtrit

    names = {name: g for g, name in enumerate(dict.fromkeys(clusters))}
    sums = np.bincount([names[name] for name in clusters], weights=residuals)
    variance = len(names) / (len(names) - 1) * float(np.square(sums).sum())
    return float(stdtrit(len(names) - 1, (1 + level) / 2)) ** 2 * variance
