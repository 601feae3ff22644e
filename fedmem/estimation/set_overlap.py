"""Overlap of two small sets beyond what sets that are drawn at random have."""

from __future__ import annotations

from math import comb

import numpy as np

from fedmem.contracts.arrays import FloatArray


def jaccard(first: FloatArray, second: FloatArray) -> FloatArray:
    """(n,) the Jaccard index |A ∩ B| / |A ∪ B| of pairs of sets; 0 where both are empty.

    Args:
        first: (n, k) the members of each A by their numbers, no number twice; NaN is no member.
        second: (n, l) the same of each B.

    Examples:
        >>> jaccard(np.array([[4.0, 7.0]]), np.array([[7.0, np.nan]]))
        array([0.5])
    """
    common = (first[:, :, None] == second[:, None, :]).sum(axis=(1, 2))
    union = _sizes(first) + _sizes(second) - common
    return np.asarray(common / np.maximum(union, 1), dtype=np.float64)


def expected_jaccard(a: int, b: int, total: int) -> float:
    """The exact mean of the Jaccard index of independent uniform draws of `a` and of `b` of `total` members.

    The number x of common members is hypergeometric: Σ_x C(a, x) C(total − a, b − x) / C(total, b) · x / (a + b − x).

    >>> expected_jaccard(1, 1, 8), expected_jaccard(0, 3, 8), expected_jaccard(8, 8, 8)
    (0.125, 0.0, 1.0)
    """
    ways = (comb(a, x) * comb(total - a, b - x) * x / (a + b - x) for x in range(1, min(a, b) + 1))
    return sum(ways) / comb(total, b)


def jaccard_excess(first: FloatArray, second: FloatArray, total: int) -> FloatArray:
    """(n,) `jaccard` of pairs of sets minus its mean under independent draws of their sizes.

    An empty set has an overlap of 0 by chance as well, so that its value is 0.

    >>> jaccard_excess(np.array([[3.0], [3.0]]), np.array([[3.0], [2.0]]), total=4)
    array([ 0.75, -0.25])
    """
    sizes = zip(_sizes(first).tolist(), _sizes(second).tolist(), strict=True)
    expected = [expected_jaccard(a, b, total) for a, b in sizes]
    return jaccard(first, second) - np.array(expected, dtype=np.float64)


def _sizes(members: FloatArray) -> FloatArray:
    return np.asarray((~np.isnan(members)).sum(axis=1))
