"""Intervals from two-way clusters: runs and examples, each of which many values share.

A value v = Σ w y over pairs of a run and an example has, to first order, one contribution for each pair. Pairs of one
example are correlated, and so are pairs of one run. The variance of Cameron, Gelbach and Miller (2011) adds both kinds
of clusters and takes off what was counted twice:

    V = V_examples + V_runs − V_pairs,    each Σ over its clusters of (sum of contributions)².

Here contributions are split first (`Influence`): what an example adds with all its runs, and what each pair adds beyond
that. The first gives V_examples. Of the second only V_runs − V_pairs is used, the covariance of examples in one run.
Coins are balanced, so that what an example does whatever its coin cancels; the split takes it out of both.

Examples that are in or out together are one cluster (`coin_groups`).

An interval is v ± t √V with min(runs, examples) − 1 degrees of freedom. Differences and ratios of values are paired:
their contributions are differences and linear combinations of contributions.

Reference: Cameron, Gelbach and Miller (2011), Robust Inference With Multiway Clustering, Journal of Business & Economic
Statistics 29(2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Influence

FEWEST = 8
"""The fewest runs, and examples of a kind, for which an interval is reported."""

_ROUNDING = 1e-12
"""A standard error below this share of the value is rounding: values that are all alike."""


def influence(weights: FloatArray, values: FloatArray) -> Influence:
    """The contributions to Σ weights × values, (R, n) each.

    Weights are positive for runs in, negative for runs out, and 0 where a pair does not count; its value may be NaN
    then. Guarantees:

    - `examples` sums to 0, and each column of `cells` does;
    - a constant that is added to one example, in and out, changes nothing but rounding.

    >>> weights = np.array([[0.25, 0.25], [0.25, -0.25], [-0.25, 0.25], [-0.25, -0.25]])
    >>> found = influence(weights, np.array([[3.0, 9.0], [3.0, 7.0], [1.0, 9.0], [1.0, 7.0]]))
    >>> found.examples.tolist(), np.abs(found.cells).max().item()
    ([0.0, 0.0], 0.0)
    """
    runs = len(weights)
    cells, examples = np.zeros(weights.shape), np.zeros(weights.shape[1])
    is_counted = weights != 0
    zero_filled = np.where(is_counted, values, 0.0)
    # measured from the first value that counts, equal values are equal to the last bit
    offsets = np.where(is_counted, zero_filled - zero_filled[is_counted.argmax(0), np.arange(weights.shape[1])], 0.0)
    for side in (weights > 0, weights < 0):
        if not side.any():
            continue
        share = np.where(side, weights, 0.0)
        side_mean = np.where(side, offsets, 0.0).sum(0) / np.maximum(side.sum(0), 1)
        cells += share * np.where(side, offsets - side_mean, 0.0) * widening(side.sum(0), runs)
        everywhere = float((share * zero_filled).sum() / share.sum())
        examples += (share * (zero_filled - everywhere)).sum(0)
    some = is_counted.any(0)
    n = int(some.sum())
    examples = np.where(some, examples - examples.sum() / max(n, 1), 0.0)
    return Influence(examples=examples * (math.sqrt(n / (n - 1)) if n > 1 else 0.0), cells=cells)


def widening(count: IntArray, runs: int) -> FloatArray:
    """The factor that corrects for deviations from the mean of `count` of R runs.

    A deviation that a run adds to all examples keeps (1 − 1/n) R/(R − 1) of its size on average. The means of other
    examples are over other runs.
    """
    n = np.maximum(count, 2)
    return np.where(count > 1, n / (n - 1) * math.sqrt((runs - 1) / max(runs, 1)), 0.0)


def of_difference(values: FloatArray, is_in: BoolArray) -> Influence:
    """The contributions to the mean over examples of the mean over in runs minus that over out runs.

    `values` (R, n), NaN where there is none; every example has an in run and an out run with a value.
    """
    return influence(_shares(values, is_in) - _shares(values, ~is_in), values)


def of_ins(values: FloatArray, is_in: BoolArray) -> Influence:
    """The contributions to the mean over examples of the mean over in runs; each has one with a value."""
    return influence(_shares(values, is_in), values)


def _shares(values: FloatArray, side: BoolArray) -> FloatArray:
    """The weight of each pair in a mean over examples of means over the runs of a side."""
    counted = side & ~np.isnan(values)
    return np.asarray(counted / np.maximum(counted.sum(0), 1) / counted.shape[1])


def place_among(contributions: Influence, rows: IntArray, m: int) -> Influence:
    """The same for the examples `rows` among m."""
    examples, cells = np.zeros(m), np.zeros((len(contributions.cells), m))
    examples[rows], cells[:, rows] = contributions.examples, contributions.cells
    return Influence(examples=examples, cells=cells, runs=contributions.runs)


def combine(parts: Iterable[tuple[float, Influence]]) -> Influence:
    """The contributions to Σ factor × value; at least one part."""
    first, *rest = parts
    examples, cells = first[0] * first[1].examples, first[0] * first[1].cells
    runs = None if first[1].runs is None else first[0] * first[1].runs
    for factor, contributions in rest:
        examples, cells = examples + factor * contributions.examples, cells + factor * contributions.cells
        if contributions.runs is not None:
            runs = factor * contributions.runs + (0.0 if runs is None else runs)
    return Influence(examples=examples, cells=cells, runs=runs)


def variance(contributions: Influence) -> float:
    """V_examples + V_runs − V_pairs, and at least half of V_examples.

    The difference of the last two may be negative by chance; without that floor one of fifty intervals would be hardly
    wider than nothing. V may be 0, or only the rounding error of the three sums, where examples are all alike. Then the
    larger of V_examples and V_runs stands in for V.
    """
    by_example, by_run, by_pair = _product_sums(contributions, contributions)
    return _total(by_example, by_run, by_pair)


def _product_sums(first: Influence, other: Influence) -> tuple[float, float, float]:
    """The three sums of products: over examples, over runs, over pairs."""
    by_run = [one.cells.sum(1) + (0.0 if one.runs is None else one.runs) for one in (first, other)]
    return (
        float(first.examples @ other.examples),
        float(by_run[0] @ by_run[1]),
        float((first.cells * other.cells).sum()),
    )


def _total(by_example: float, by_run: float, by_pair: float) -> float:
    total = max(by_example + by_run - by_pair, by_example / 2)
    # sums that cancel leave a rest of about 1e-16 of their size, whose square root is no small standard error
    noise = _ROUNDING * (by_example + by_run + abs(by_pair))
    if total > noise:
        return total
    largest = max(by_example, by_run, 0.0)
    return largest if largest > _ROUNDING**2 * abs(by_pair) else 0.0


def half_width(value: float, contributions: Influence, clusters: int, level: float = 0.95, scale: float = 0.0) -> float:
    """t √V, NaN with fewer than `FEWEST` clusters or where nothing varies: values that are all alike are no certainty.

    `clusters` is the smaller of the numbers of runs and of examples; runs without values do not count. `scale` is the
    size of what a difference was formed from: less than rounding errors of that is no variation.
    """
    error = math.sqrt(variance(contributions))
    if clusters < FEWEST or not error > _ROUNDING * max(abs(value), scale, 1e-300):
        return math.nan
    return quantile(clusters - 1, level) * error


def quantile(freedom: float, level: float = 0.95) -> float:
    """The t that a two-sided interval reaches out to."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def interval(
    value: float,
    contributions: Influence,
    clusters: int,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    level: float = 0.95,
    scale: float = 0.0,
) -> tuple[float, float]:
    """The interval of a value, never beyond what the value can be; (NaN, NaN) where `half_width` is or at a bound.

    At a bound all values are at that bound. With a true positive rate of 1 only the threshold varies, which says
    nothing about members that are missed. Between two finite bounds the interval is taken on the scale of
    `log((v − least) / (most − v))`. Its error there is that of v times `(most − least) / ((v − least) (most − v))`. So
    near a bound the interval is not symmetric. Less than rounding errors of the range between finite bounds is no
    variation.

    >>> one = Influence(examples=np.array([0.01] * 5 + [-0.01] * 5), cells=np.zeros((10, 10)))
    >>> [round(end, 3) for end in interval(0.95, one, 10, (0.0, 1.0))]
    [0.808, 0.988]
    """
    if all(map(math.isfinite, bounds)):
        scale = max(scale, bounds[1] - bounds[0])
    half = half_width(value, contributions, clusters, level, scale) if bounds[0] < value < bounds[1] else math.nan
    return interval_around(value, half, bounds)


def interval_around(
    value: float, half: float, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float]:
    """`value` ± `half` within bounds, by log odds where both are finite and the value is between them.

    >>> [round(end, 2) for end in interval_around(0.9, 0.2, (0.0, 1.0))]
    [0.49, 0.99]
    >>> interval_around(3.0, 1.0), interval_around(0.0, 0.1, (0.0, 1.0))
    ((2.0, 4.0), (0.0, 0.1))
    """
    if math.isnan(half) or math.isnan(value):
        return math.nan, math.nan
    lower, upper = bounds
    if math.isinf(lower) or math.isinf(upper) or not lower < value < upper:
        return max(value - half, lower), min(value + half, upper)
    odds = (value - lower) / (upper - value)
    wide = min(half * (upper - lower) / ((value - lower) * (upper - value)), 700.0)
    ends = (odds * math.exp(-wide), odds * math.exp(wide))
    low, high = (lower + (upper - lower) * (end / (1 + end) if math.isfinite(end) else 1.0) for end in ends)
    return low, high


MIN_LOWER_END = 0.1
"""Where the interval of an effect ends below this share of the effect, nothing is divided by it in tables."""


def ratio_interval(
    whole: tuple[float, Influence], part: tuple[float, Influence], clusters: int, level: float = 0.95
) -> tuple[float, float]:
    """Fieller's interval of whole / part: all ρ for which whole − ρ part does not differ from 0 (Fieller, 1954).

    It is bounded where `part` differs from 0, and (NaN, NaN) where it does not, or where there are too few clusters.

    >>> ones = Influence(examples=np.array([0.1, -0.1] * 5), cells=np.zeros((10, 10)))
    >>> twos = Influence(examples=np.array([0.2] * 5 + [-0.2] * 5), cells=np.zeros((10, 10)))
    >>> [round(end, 3) for end in ratio_interval((2.0, ones), (4.0, twos), 10)]
    [0.309, 0.808]
    """
    (top, of_top), (bottom, of_bottom) = whole, part
    if math.isnan(half_width(bottom, of_bottom, clusters, level)):
        return math.nan, math.nan
    t = quantile(clusters - 1, level)
    top_products, crossed, other = (
        _product_sums(of_top, of_top),
        _product_sums(of_top, of_bottom),
        _product_sums(of_bottom, of_bottom),
    )

    def is_outside(ratio: float) -> bool:
        sums = (a - 2 * ratio * b + ratio * ratio * c for a, b, c in zip(top_products, crossed, other, strict=True))
        return abs(top - ratio * bottom) > t * math.sqrt(max(_total(*sums), 0.0))

    if abs(bottom) <= t * math.sqrt(variance(of_bottom)):
        return math.nan, math.nan
    middle = top / bottom
    low, high = _end(middle, -1, is_outside), _end(middle, 1, is_outside)
    return (low, high) if high - low > 1e-9 * max(abs(middle), 1.0) else (math.nan, math.nan)


def _end(middle: float, side: int, beyond: Callable[[float], bool]) -> float:
    """Where an interval around `middle` ends on one side, by doubling and halving."""
    step = 1e-12 * max(abs(middle), 1.0)
    near, far = middle, middle + side * step
    while not beyond(far):
        step *= 2
        near, far = far, middle + side * step
    for _ in range(60):
        half = (near + far) / 2
        near, far = (near, half) if beyond(half) else (half, far)
    return near
