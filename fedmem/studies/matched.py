"""Settings at equal utility: by how much a quantity differs where both reach the same utility during training.

A setting that learns less may memorise less for that reason alone. So each setting is observed at several points, such
as rounds, and its quantity is read where its utility reaches a level. A level that one of them does not reach has no
answer: nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.studies.contrasts import Contrast, contrast

if TYPE_CHECKING:
    import pandas as pd

NOT_COMPLETE = "no seed has all points of both settings"
NOT_REACHED = "a setting does not reach this utility"
NOT_RISING = "the utility of a setting does not rise significantly between the points around this level"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A setting along its training: points in their order, such as rounds, in each seed.

    Attributes:
        utility: (S, T) utility, higher is better, such as test accuracy.
        quantity: (S, T) what is compared, at the same points.
    """

    utility: FloatArray
    quantity: FloatArray

    def __post_init__(self) -> None:
        seeds, points = self.utility.shape
        assert self.quantity.shape == (seeds, points), (self.utility.shape, self.quantity.shape)

    @property
    def is_complete(self) -> BoolArray:
        """(S,) whether a seed has finite values at all points."""
        return np.asarray(np.isfinite(self.utility).all(axis=1) & np.isfinite(self.quantity).all(axis=1))

    def of_seeds(self, mask: BoolArray) -> Curve:
        """The curve of the seeds where the mask (S,) is true."""
        return Curve(utility=self.utility[mask], quantity=self.quantity[mask])


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The utilities that the mean curves of two settings share.

    Attributes:
        low: Lower end; NaN without an overlap.
        high: Upper end; NaN without an overlap.
        share: Length of the shared range over that of the range of both together, 0..1.
    """

    low: float
    high: float
    share: float


@dataclass(frozen=True, kw_only=True)
class MatchedDifference:
    """The difference of a quantity at one level of utility, setting − reference.

    Attributes:
        level: The utility at which both are read.
        difference: Over seeds, with interval and p; its value is NaN where there is no answer.
        reaching: How many of these seeds reach the level on both of their own curves.
        reason: Why there is no answer; empty where there is one.
    """

    level: float
    difference: Contrast
    reaching: int
    reason: str = ""


def seeds_by_rounds(values: pd.DataFrame, seeds: Sequence[int], rounds: Sequence[int]) -> FloatArray:
    """(S, T) the values of one quantity as a curve has them; NaN where a seed lacks a round.

    Args:
        values: One row a value: `seed`, `round` and `value`.
        seeds: S seeds, in the order of the result.
        rounds: T rounds, in the order of the result.

    >>> import pandas as pd
    >>> values = pd.DataFrame({"seed": [1, 0, 1], "round": [2, 2, 4], "value": [0.3, 0.1, 0.5]})
    >>> seeds_by_rounds(values, [0, 1], [2, 4]).tolist()
    [[0.1, nan], [0.3, 0.5]]
    """
    wide = values.pivot(index="seed", columns="round", values="value").reindex(index=list(seeds), columns=list(rounds))
    return np.asarray(wide.to_numpy(dtype=np.float64))


def overlap_of(curve: Curve, reference: Curve) -> Overlap:
    """The range of utilities that both mean curves pass through, over seeds that are complete in both.

    >>> line = Curve(utility=np.array([[0.0, 0.8]]), quantity=np.zeros((1, 2)))
    >>> overlap_of(line, Curve(utility=np.array([[0.4, 1.0]]), quantity=np.zeros((1, 2))))
    Overlap(low=0.4, high=0.8, share=0.4)
    """
    seeds = curve.is_complete & reference.is_complete
    if not seeds.any():
        return Overlap(low=math.nan, high=math.nan, share=0.0)
    means = [part.of_seeds(seeds).utility.mean(axis=0) for part in (curve, reference)]
    low, high = max(float(mean.min()) for mean in means), min(float(mean.max()) for mean in means)
    if low > high:
        return Overlap(low=math.nan, high=math.nan, share=0.0)
    whole = max(float(mean.max()) for mean in means) - min(float(mean.min()) for mean in means)
    return Overlap(low=low, high=high, share=(high - low) / whole if whole > 0 else 1.0)


def difference_at(curve: Curve, reference: Curve, level: float) -> MatchedDifference:
    """Quantity of the setting − that of the reference where each first reaches the level of utility.

    Let ū and q̄ be the means over seeds. The level lies between two points, at the weight w with
    (1 − w) ū₁ + w ū₂ = level. Its value in seed s is q_s − β (u_s − level), where q_s and u_s are at w and β = Δq̄ / Δū
    between the points. The mean over seeds is q̄ at w. So the interval also holds the uncertainty of the match (delta
    method).

    - Differences are within seeds, with Student's interval and p, as of any difference of settings (`contrast`).
    - Only seeds with finite values at all points of both count. A diverged model removes its seed.
    - There is no answer where a mean curve does not reach the level, or begins above it.
    - There is none either where utility does not rise significantly between the two points. Choose points farther
      apart, or a lower level: on a plateau of utility any value of the quantity is at the level.
    - Utility that falls again counts until it first reaches the level, as with early stopping.
    - For several levels, settings or quantities adjust the difference by `contrasts.simultaneous`.

    Args:
        curve: The setting, S seeds.
        reference: The reference at the same S seeds; it may have other points.
        level: A utility, chosen without regard to the quantity.

    Examples:
        >>> noise = np.array([[-0.1], [0.0], [0.2]])
        >>> slow = Curve(utility=np.array([[0.0, 0.5, 1.0]] * 3), quantity=np.array([[0.0, 1.0, 2.0]] * 3) + noise)
        >>> fast = Curve(utility=np.array([[0.0, 1.0]] * 3), quantity=np.array([[0.0, 4.0]] * 3))
        >>> found = difference_at(slow, fast, 0.75)
        >>> round(found.difference.value, 3), found.difference.n, found.reaching
        (-1.467, 3, 3)
        >>> difference_at(slow, fast, 1.2).reason
        'a setting does not reach this utility'
    """
    seeds = curve.is_complete & reference.is_complete
    count = int(seeds.sum())
    pair = [part.of_seeds(seeds) for part in (curve, reference)]
    reaching = [(part.utility.min(axis=1) <= level) & (part.utility.max(axis=1) >= level) for part in pair]
    both = int((reaching[0] & reaching[1]).sum())
    values, reason = [], "" if count else NOT_COMPLETE
    for part in pair if count else []:
        found, missing = values_at(part, level)
        values.append(found)
        reason = reason or missing
    if reason:
        none = Contrast(value=math.nan, low=math.nan, high=math.nan, p=math.nan, sd=math.nan, n=count)
        return MatchedDifference(level=level, difference=none, reaching=both, reason=reason)
    return MatchedDifference(level=level, difference=contrast(values[0], values[1]), reaching=both)


def values_at(curve: Curve, level: float) -> tuple[FloatArray, str]:
    """The value of each seed (S,) where the mean curve first reaches the level, and why there is none.

    Values are those of `difference_at`: differences of them, in any mean over settings, have the same uncertainty.

    Args:
        curve: The setting. Where a seed lacks a value, all are undefined: leave it out by `of_seeds`.
        level: A utility, chosen without regard to the quantity.

    >>> line = Curve(utility=np.array([[0.0, 1.0]] * 2), quantity=np.array([[0.0, 4.0], [0.0, 6.0]]))
    >>> values_at(line, 0.5)[0].tolist()
    [2.0, 3.0]
    """
    none = np.full(len(curve.utility), math.nan)
    if not curve.is_complete.all():
        return none, NOT_COMPLETE
    utility, quantity = curve.utility.mean(axis=0), curve.quantity.mean(axis=0)
    rounding = 1e-12 * max(abs(level), float(np.abs(utility).max(initial=0.0)))
    reached = np.flatnonzero(utility >= level - rounding)
    if not len(reached) or utility[0] > level + rounding or len(utility) < 2:
        return none, NOT_REACHED
    after = max(int(reached[0]), 1)
    before = after - 1
    rise = contrast(curve.utility[:, after], curve.utility[:, before])
    if not rise.value > 0 or (rise.n > 1 and rise.sd > 0 and not rise.low > 0):
        return none, NOT_RISING
    slope = (quantity[after] - quantity[before]) / rise.value
    weight = (level - utility[before]) / rise.value
    at = [(1 - weight) * part[:, before] + weight * part[:, after] for part in (curve.utility, curve.quantity)]
    return np.asarray(at[1] - slope * (at[0] - level)), ""
