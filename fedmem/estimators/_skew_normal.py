"""The skew-normal distribution: fitted to quantiles, many samples at once, and its cdf far into the tails."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray

_SHAPES = 201
"""Shapes that are tried, as angles arctan α from −1.55 to 1.55, which is |α| up to 48."""

_POINTS = 4001
"""Points at which the cdf of each shape is inverted."""

_NODES = 48
"""Nodes of the integral in the tail."""


class SkewNormal(NamedTuple):
    """T laws with density 2/ω φ(z) Φ(α z), z = (x − ξ) / ω: location ξ, scale ω > 0, shape α, each (T,)."""

    location: FloatArray
    scale: FloatArray
    shape: FloatArray


def positions(count: int, stored: int = 256) -> IntArray:
    """Which order statistics of `count` values (0 is the smallest) are stored as evenly spaced quantiles.

    >>> positions(1000)[[0, 1, -1]].tolist()
    [0, 4, 999]
    """
    return np.round(np.linspace(0, count - 1, stored)).astype(np.int64)


def fit(ordered: FloatArray, count: int) -> SkewNormal:
    """The laws that fit stored quantiles (T, 256) of `count` values best; NaN where they are not finite or all equal.

    For each of a grid of shapes, location and scale follow from weighted regression of the values on the quantiles of
    that shape. The weights are 1 / Var of an order statistic, f(q)² / (p (1 − p)). The shape with the smallest residual
    wins, refined by a parabola through its neighbours. Quantiles that lie on a skew-normal give it back.
    """
    angles, quantiles, weights, total = _table(count, ordered.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):
        spread = ordered.std(1)
    usable = np.isfinite(ordered).all(1) & (spread > 0)
    y = (ordered[usable] - ordered[usable].mean(1, keepdims=True)) / spread[usable, None]
    mean_q = (weights * quantiles).sum(1)
    var_q = (weights * quantiles**2).sum(1) - mean_q**2
    mean_y, square_y = y @ weights.T, y**2 @ weights.T
    scale = (y @ (weights * quantiles).T - mean_y * mean_q) / var_q
    # In units of the variances: otherwise the shape whose weights happen to be small would win.
    cost = total * ((square_y - mean_y**2) / np.maximum(scale, 1e-12) ** 2 - var_q)
    best = cost.argmin(1).clip(1, len(angles) - 2)
    left, middle, right = (np.take_along_axis(cost, (best + step)[:, None], axis=1)[:, 0] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    step = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0).clip(-1, 1)
    # Between two shapes, everything is taken from the straight line between them.
    other, share = best + np.sign(step).astype(np.int64), np.abs(step)
    rows = np.arange(len(y))

    def interpolate(values: FloatArray) -> FloatArray:
        return np.asarray((1 - share) * values[rows, best] + share * values[rows, other])

    angle = (1 - share) * angles[best] + share * angles[other]
    slope, offset = interpolate(scale), interpolate(mean_y - scale * mean_q)
    parameters = [np.full(len(ordered), np.nan) for _ in range(3)]
    parameters[0][usable] = ordered[usable].mean(1) + spread[usable] * offset
    parameters[1][usable] = spread[usable] * slope
    parameters[2][usable] = np.tan(angle)
    return SkewNormal(*parameters)


def log_cdf(x: FloatArray, law: SkewNormal) -> FloatArray:
    """log F(x), elementwise, to about ten digits however small F is; NaN where x or the law is.

    Below 1e-4 the difference of the usual formula, Φ(z) − 2 T(z, α) with Owen's T, has no digits left. The density is
    log-concave, so there the integral from z down is taken over exp(-λ u) with λ the slope of its logarithm at z.

    >>> one = SkewNormal(np.zeros(1), np.ones(1), np.ones(1))  # α = 1: F = Φ²
    >>> log_cdf(np.array([-20.0]), one).round(3).item() == round(2 * -203.917155, 3)
    True
    """
    from scipy.special import log_ndtr, ndtr, owens_t

    z, shape = np.broadcast_arrays((x - law.location) / law.scale, law.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        cdf = np.clip(ndtr(z) - 2 * owens_t(z, shape), 0.0, 1.0)
        logs = np.log(cdf)
    deep = (cdf < 1e-4) & ~np.isnan(z) & ~np.isnan(shape)
    if deep.any():
        at, bend = z[deep][:, None], shape[deep][:, None]

        def log_density(t: FloatArray) -> FloatArray:
            return np.asarray(np.log(2) - 0.5 * t * t - 0.5 * np.log(2 * np.pi) + log_ndtr(bend * t))

        # φ/Φ in logarithms: both underflow
        hazard = np.exp(-0.5 * (bend * at) ** 2 - 0.5 * np.log(2 * np.pi) - log_ndtr(bend * at))
        slope = np.maximum(-at + bend * hazard, 0.1)
        nodes, weights = np.polynomial.laguerre.laggauss(_NODES)
        inner = np.exp(log_density(at - nodes / slope) - log_density(at) + nodes)
        logs[deep] = (log_density(at) - np.log(slope) + np.log((weights * inner).sum(1, keepdims=True)))[:, 0]
    return np.asarray(logs)


@cache
def _table(count: int, stored: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """For a grid of shapes: arctan α, standard quantiles (G, 256), weights that add up to 1, and what they added to."""
    from scipy.special import ndtr, owens_t

    angles = np.linspace(-1.55, 1.55, _SHAPES)
    shapes = np.tan(angles)
    p = (positions(count, stored) + 0.625) / (count + 0.25)  # Blom's plotting positions
    z = np.linspace(-9, 9, _POINTS)
    quantiles = np.empty((_SHAPES, stored))
    for g, shape in enumerate(shapes):
        level = np.maximum.accumulate(ndtr(z) - 2 * owens_t(z, shape))
        first = int(np.argmax(level > 1e-12))
        quantiles[g] = np.interp(p, level[first:], z[first:])
    density = np.sqrt(2 / np.pi) * np.exp(-0.5 * quantiles**2) * ndtr(shapes[:, None] * quantiles)
    precision = density**2 / (p * (1 - p))
    total = precision.sum(1, keepdims=True)
    return angles, quantiles, precision / total, total[:, 0]
