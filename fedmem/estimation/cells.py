"""Contrasts of runs by two coins: means over cells of runs, their intervals, and a p of their interaction.

With two independent coins T and P of an example, its runs fall into four cells. A contrast is a sum of ± the mean over
a cell, such as the interaction

    I = (v₁₁ − v₀₁) − (v₁₀ − v₀₀),    v_tp the mean over runs with T = t and P = p.

Effects of T alone and of P alone cancel in I, whatever the sizes of the cells. With balanced coins and no value
missing, n₁₁ = n₀₀ and n₁₀ = n₀₁.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import CoinPermutations, Influence
from fedmem.estimation.randomisation import deals_of, two_sided
from fedmem.estimation.two_way import widening

Cells = Sequence[tuple[float, BoolArray]]
"""The sign of each cell in a contrast, and its pairs of a run and an example (R, n)."""

_PART = 2**22
"""Coins that are handled at once."""


def interaction(target: BoolArray, other: BoolArray) -> Cells:
    """The four cells of the interaction of two coins (R, n)."""
    return (
        (1.0, target & other),
        (-1.0, ~target & other),
        (-1.0, target & ~other),
        (1.0, ~target & ~other),
    )


def contrast(values: FloatArray, cells: Cells) -> FloatArray:
    """(n,) the contrast of each example; NaN where one of its cells has no value.

    >>> values = np.array([[5.0], [1.0], [3.0], [2.0]])
    >>> t, p = np.array([[True], [False], [True], [False]]), np.array([[True], [True], [False], [False]])
    >>> contrast(values, interaction(t, p)).tolist()
    [3.0]
    """
    total = np.zeros(values.shape[1])
    for sign, cell in cells:
        total = total + sign * _mean(values, cell)
    return total


def influence_of(values: FloatArray, cells: Cells) -> Influence:
    """The contributions to the mean of the contrast over n examples, each of which has a value in every cell."""
    runs, n = values.shape
    each = contrast(values, cells)
    pairs = np.zeros(values.shape)
    for sign, cell in cells:
        counted = cell & ~np.isnan(values)
        size = counted.sum(0)
        share = np.where(counted, 1.0 / np.maximum(size, 1), 0.0) / n
        pairs += sign * share * np.where(counted, values - _mean(values, cell), 0.0) * widening(size, runs)
    return Influence(examples=spread(each), cells=pairs)


def without_negative_covariance(parts: Influence) -> Influence:
    """The same contributions, without those of pairs where these lower the variance below that of examples.

    V_runs − V_pairs estimates the covariance of examples in one run, and with few runs it is often negative by chance.
    A run that makes two examples differ in opposite ways is not expected. Then the variance is that of examples.
    """
    by_run, by_pair = float(np.square(parts.cells.sum(axis=1)).sum()), float(np.square(parts.cells).sum())
    if by_run >= by_pair or float(np.square(parts.examples).sum()) <= 1e-12 * by_pair:
        return parts
    return replace(parts, cells=np.zeros_like(parts.cells))


def spread(each: FloatArray) -> FloatArray:
    """(n,) the contributions of examples to the mean of their values."""
    n = len(each)
    return np.asarray((each - each.mean()) / n * (math.sqrt(n / (n - 1)) if n > 1 else 0.0))


def p_of_interaction(values: FloatArray, target: BoolArray, redeals: CoinPermutations) -> float:
    """p of no interaction of the coins `target` (R, n) with those that `redeals` deals again, of the same n examples.

    The hypothesis is v = a + b T + c P + noise, with any a, b and c of each example. The noise does not depend on P.
    Were a, b and c known, the noise could be dealt to other coins P, which would be exact. They are estimated by least
    squares. Residuals of n runs have n − 3 degrees of freedom, where dealing them again counts n − 1. So deals are
    widened by √((n − 1)/(n − 3)). The test is then approximate; see the tests for its level.

    The coins of `target` stay as they fell. NaN where no deal changes a coin, and with fewer than two runs.
    """
    deals = deals_of(redeals, np.arange(values.shape[1]))
    if min(len(deals), len(values)) < 2 or not values.shape[1]:
        return math.nan
    other = deals[0]
    residuals = np.stack([_residuals(*column) for column in zip(values.T, target.T, other.T, strict=True)], axis=1)
    step = max(1, _PART // max(values.size, 1))
    parts = [_of_deals(residuals, target, deals[start : start + step]) for start in range(0, len(deals), step)]
    statistics = np.concatenate(parts)
    statistics[0] = contrast(values, interaction(target, other)).mean()
    return two_sided(statistics)


def _residuals(values: FloatArray, target: BoolArray, other: BoolArray) -> FloatArray:
    """(R,) what the additive effects of two coins leave of the values of an example, widened; NaN where none is."""
    is_measured = ~np.isnan(values)
    count = int(is_measured.sum())
    residuals = np.full(len(values), np.nan)
    design = np.stack([np.ones(count), target[is_measured], other[is_measured]], axis=1)
    if count > design.shape[1]:
        fit, *_ = np.linalg.lstsq(design, values[is_measured], rcond=None)
        left = values[is_measured] - design @ fit
        scale = max(float(np.abs(values[is_measured]).max()), 1e-300)
        left = np.where(np.abs(left) > 1e-12 * scale, left, 0.0)  # rounding is no noise
        residuals[is_measured] = left * math.sqrt((count - 1) / (count - 3))
    return residuals


def _of_deals(residuals: FloatArray, target: BoolArray, deals: BoolArray) -> FloatArray:
    """(P,) the mean interaction under each deal, over the examples that then have a value in every cell."""
    is_measured = ~np.isnan(residuals)
    filled = np.where(is_measured, residuals, 0.0)
    others = deals.astype(np.float64)
    total = np.zeros((len(deals), residuals.shape[1]))
    for sign, side in ((1.0, target), (-1.0, ~target)):
        side_values, side_count = np.where(side, filled, 0.0), (side & is_measured).astype(np.float64)
        inside = np.einsum("prm,rm->pm", others, side_values)
        n = np.einsum("prm,rm->pm", others, side_count)
        rest, m = side_values.sum(0) - inside, side_count.sum(0) - n
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = inside / n - rest / m
        total += sign * np.where((n > 0) & (m > 0), gap, np.nan)
    usable = ~np.isnan(total)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(usable, total, 0.0).sum(1) / usable.sum(1))


def _mean(values: FloatArray, cell: BoolArray) -> FloatArray:
    """(n,) the mean over the values of a cell; NaN where there is none. Equal values have an exact mean."""
    counted = cell & ~np.isnan(values)
    first = np.where(counted.any(0), values[counted.argmax(0), np.arange(values.shape[1])], np.nan)
    offsets = np.where(counted, values - first, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(first + offsets.sum(0) / counted.sum(0))
