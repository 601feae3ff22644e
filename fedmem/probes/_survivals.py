"""Definitions behind the survival of updates: weights in a step, atypicality, and what goes with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.probes._clusters import interval_around

TIED = 1e-3
"""Survivals that differ by less than this part of the largest are ties: models are sums in float32."""

_DEPENDENT = 1e-6
"""Eigenvalues of the Gram matrix of unit updates that count as zero: nearer than 1/1000 of a length to dependence."""


def survivals(step: FloatArray, updates: FloatArray) -> tuple[FloatArray, float]:
    """(K,) K times the least squares coefficients of a step (P,) on updates (K, P), and the unexplained share.

    Updates that are not finite do not count. Coefficients that the updates do not determine are NaN.

    >>> updates = np.array([[1.0, 0.0, 0.0], [1.0, 2.0, 0.0]])
    >>> own, unexplained = survivals(np.array([0.75, 0.5, 0.0]), updates)  # weights 1/2 and 1/4
    >>> own.round(6).tolist(), round(unexplained, 6)
    ([1.0, 0.5], 0.0)
    """
    own = np.full(len(updates), np.nan)
    lengths = np.linalg.norm(updates, axis=1)
    finite = np.isfinite(lengths)
    usable = finite & (lengths > 0)
    if not np.isfinite(step).all() or not finite.any():
        return own, math.nan
    directions = updates[usable] / lengths[usable, None]
    eigenvalues, vectors = np.linalg.eigh(directions @ directions.T)
    is_kept = eigenvalues > _DEPENDENT
    basis, eigenvalues = vectors[:, is_kept], eigenvalues[is_kept]
    along = basis.T @ (directions @ step)
    is_determined = (basis**2).sum(axis=1) > 1 - _DEPENDENT
    coefficients = basis @ (along / eigenvalues) / lengths[usable]
    own[usable] = np.where(is_determined, finite.sum() * coefficients, np.nan)
    square = float(step @ step)
    explained = float((along**2 / eigenvalues).sum()) / square if square else math.nan
    return own, float(np.clip(1 - explained, 0, 1))


def survivals_along(step: FloatArray, updates: FloatArray) -> FloatArray:
    """(K,) K times the projection of a step (P,) on each update (K, P), as a multiple of it; NaN for a zero update.

    >>> survivals_along(np.array([1.0, 1.0]), np.array([[2.0, 0.0], [0.0, 0.0]])).tolist()
    [1.0, nan]
    """
    squares = (updates**2).sum(axis=1)
    finite = np.isfinite(squares)
    usable = finite & (squares > 0)
    along = np.full(len(updates), np.nan)
    along[usable] = finite.sum() * (updates[usable] @ step) / squares[usable]
    return along


def atypicalities(updates: FloatArray) -> FloatArray:
    """(K,) 1 minus the cosine of each update (K, P) with the mean of the other finite ones; NaN where there is none.

    >>> atypicalities(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])).round(3).tolist()
    [0.445, 0.684, 1.0]
    """
    finite = np.isfinite(updates).all(axis=1)
    values = np.full(len(updates), np.nan)
    for k in np.flatnonzero(finite).tolist():
        others = finite & (np.arange(len(updates)) != k)
        if others.any():
            mean = updates[others].mean(axis=0)
            length = float(np.linalg.norm(mean) * np.linalg.norm(updates[k]))
            values[k] = 1 - float(mean @ updates[k]) / length if length else np.nan
    return np.asarray(np.clip(values, 0, 2))


def rank_correlation(survival: FloatArray, values: FloatArray) -> tuple[float, int]:
    """Spearman's correlation over clients that have both, and their number; NaN and 0 where it is undefined.

    >>> rank_correlation(np.array([1.0, 1.0001, 1.0]), np.array([1.0, 2.0, 3.0]))  # equal weights
    (nan, 0)
    """
    from scipy.stats import rankdata

    known = np.isfinite(survival) & np.isfinite(values)
    if known.sum() < 3:
        return math.nan, 0
    first, second = rankdata(_with_ties(survival[known])), rankdata(values[known])
    first, second = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return (float(np.clip(first @ second / spread, -1, 1)), int(known.sum())) if spread else (math.nan, 0)


def thirds(survival: FloatArray, atypicality: FloatArray) -> tuple[float, float, int]:
    """Mean survival of the most atypical third and of the rest, and the number of clients; NaN below three clients.

    >>> thirds(np.array([1.0, 2.0, 6.0]), np.array([0.9, 0.1, 0.2]))
    (1.0, 4.0, 3)
    """
    known = np.isfinite(survival) & np.isfinite(atypicality)
    survival, atypicality = survival[known], atypicality[known]
    count = len(survival)
    if count < 3:
        return math.nan, math.nan, 0
    is_atypical = atypicality >= np.sort(atypicality)[-round(count / 3)]
    if is_atypical.all():
        return math.nan, math.nan, 0
    survival = _with_ties(survival)
    return float(survival[is_atypical].mean()), float(survival[~is_atypical].mean()), count


def _with_ties(values: FloatArray) -> FloatArray:
    """The same with the mean in place of values that follow each other more closely than rounding does."""
    order = np.argsort(values)
    starts = np.diff(values[order], prepend=values[order[:1]]) > TIED * np.abs(values).max()
    of = np.empty(len(values), dtype=np.int64)
    of[order] = np.cumsum(starts)
    return np.asarray((np.bincount(of, weights=values) / np.bincount(of))[of], dtype=np.float64)


def slope_within(
    shares: FloatArray, values: FloatArray, clients: Sequence[str], runs: Sequence[int]
) -> tuple[float, float, float]:
    """The slope of values on shares within clients, with its interval by client and by run; NaN where shares are alike.

    >>> shares, values = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 1.5, 4.0, 4.7])
    >>> round(slope_within(shares, values, ["a", "a", "b", "b"], [0, 1, 0, 1])[0], 3)
    0.6
    """
    _, of = np.unique(clients, return_inverse=True)
    counts = np.bincount(of)
    x, y = (numbers - (np.bincount(of, weights=numbers) / counts)[of] for numbers in (shares, values))
    square = float(x @ x)
    if square <= 1e-12:
        return math.nan, math.nan, math.nan
    slope = float(x @ y) / square
    low, high = interval_around(slope, x * (y - slope * x) / square, (clients, runs), 0.95)
    return slope, low, high
