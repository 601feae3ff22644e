"""When a curve reaches a level: the first point of an isotonic curve, with an interval from tests at single points.

The first point at which a curve reaches a level is a step function of the curve. So neither a linear expansion nor a
bootstrap gives it a valid interval. The distance of the curve from the level at one point is linear, and has one. The
points are then tested in their order:

- the interval begins at the first point whose distance is not significantly negative;
- it ends at the last point that follows a distance that is not significantly positive.

Let the true distance be negative before the point c and not from c on. The interval begins too late only if the
distance at c is significantly negative. It ends too early only if the distance before c is significantly positive.
Each has at most half of the error of a two-sided interval. No adjustment for the number of points is needed.

Reference: Brookmeyer and Crowley (1982), A confidence interval for the median survival time, Biometrics 38(1), whose
interval inverts tests at single times in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmem.contracts.arrays import FloatArray


def rising(curve: FloatArray) -> FloatArray:
    """(S,) the non-decreasing curve with the smallest sum of squared differences from `curve` (S,).

    >>> rising(np.array([0.0, 3.0, 1.0, 4.0])).tolist()
    [0.0, 2.0, 2.0, 4.0]
    """
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(curve).x, dtype=np.float64)


def first_at_half(curve: FloatArray) -> int:
    """The first position from which the rising curve is at least half of its final value.

    Rounding alone does not delay it. A curve that ends at 0 or below has no such position, and the caller decides that.

    >>> first_at_half(np.array([0.0, 0.1, 0.6, 1.0])), first_at_half(np.array([0.9, 0.5, 0.1]))
    (2, 0)
    """
    fitted = rising(curve)
    return int(np.flatnonzero(fitted >= _HALF * fitted[-1] - 1e-12 * abs(fitted[-1]))[0])


def crossing_span(distances: Sequence[tuple[float, float]]) -> tuple[int, int] | None:
    """The first and the last position that may be the first of a distance from 0 on; the number of positions is none.

    Args:
        distances: The interval of the distance at each position; ends of NaN say nothing.

    Returns:
        The two positions, the last one past the end where the curve may never reach the level. None where no distance
        has an interval.

    Examples:
        >>> crossing_span([(-3.0, -1.0), (-1.0, 1.0), (0.5, 2.0)])
        (1, 2)
        >>> crossing_span([(-3.0, -1.0), (-2.0, -1.0)]), crossing_span([(np.nan, np.nan)])
        ((2, 2), None)
    """
    ends = np.array(distances, dtype=np.float64).reshape(-1, 2)
    if np.isnan(ends).any(1).all():
        return None
    not_below = np.flatnonzero(~(ends[:, 1] < 0))
    not_above = np.flatnonzero(~(ends[:, 0] > 0))
    first = int(not_below[0]) if len(not_below) else len(ends)
    last = int(not_above[-1]) + 1 if len(not_above) else 0
    return first, max(first, last)


_HALF = 0.5
"""The share of the final value that counts as reached."""
