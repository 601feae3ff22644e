"""Rank statistics of membership scores: AUC and true positive rates, each with what its interval follows from.

A statistic comes as `RateEstimate`: Σ weights × shares, over pairs (R, m) of a run and an example. Weights are positive
for members, negative for others, 0 where there is no score, so that `two_way.influence` takes them as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray

_PART = 2**20
"""Pairs of scores that are compared at once."""


@dataclass(frozen=True, kw_only=True)
class RateEstimate:
    """A value in 0..1, and how each score contributes: signed `weights` (R, m) and `shares` (R, m)."""

    value: float
    weights: FloatArray
    shares: FloatArray


def smallest_fpr(n_out: int) -> float:
    """The smallest false positive rate worth a true positive rate: ten false positives. NaN with fewer than ten outs.

    >>> smallest_fpr(1280), smallest_fpr(9)
    (0.0078125, nan)
    """
    return 10 / n_out if n_out >= 10 else math.nan


DEFAULT_RATES = (0.1, 0.01, 0.001)
"""The false positive rates at which true positive rates are usually reported."""


def rates(n_out: int) -> tuple[float, ...]:
    """The false positive rates at which n outs support a true positive rate: the usual ones, and the smallest.

    >>> rates(1280), rates(100), rates(9)
    ((0.1, 0.01, 0.0078125), (0.1,), ())
    """
    smallest = smallest_fpr(n_out)
    common_rates = tuple(rate for rate in DEFAULT_RATES if rate >= smallest)
    return common_rates if math.isnan(smallest) or smallest in common_rates else (*common_rates, smallest)


def null_tpr(n_out: float, fpr: float | None = None) -> float:
    """The true positive rate that guessing has at a false positive rate, by default at `smallest_fpr`.

    At most k = ⌊fpr n⌋ of n outs may be accepted, so that the threshold is the k + 1-th highest.

    >>> null_tpr(21), null_tpr(999, 0.1)
    (0.5, 0.1)
    """
    allowed = 10 if fpr is None else math.floor(fpr * n_out * (1 + 1e-12))
    return min((allowed + 1) / (n_out + 1), 1.0)


def auc(scores: FloatArray, is_in: BoolArray) -> RateEstimate:
    """Probability that a member scores above a non-member, ties counted half.

    `scores` (R, m), NaN left out; `is_in` (R, m). Members are compared with the non-members of all runs, but only with
    those that are other examples. An example against itself in another run is another question, whose answer would
    enter with weight 1/m.

    - exact: equals the share of concordant pairs;
    - NaN without a member, without a non-member, or where all pairs are of an example with itself.

    >>> scores, is_in = np.array([[0.9, 0.5, 0.5, 0.1]]), np.array([[True, True, False, False]])
    >>> auc(scores, is_in).value
    0.875
    """
    is_scored = ~np.isnan(scores)
    ins, outs = is_in & is_scored, ~is_in & is_scored
    beaten, pairs = np.zeros(scores.shape), np.zeros(scores.shape)
    for side, other in ((ins, outs), (outs, ins)):
        # those of the other side below a score, less those of the same example
        beaten = np.where(side, _count_below(scores, other) - _below_alike(scores, other), beaten)
        pairs = np.where(side, other.sum() - other.sum(0), pairs)
    total = float(np.where(ins, pairs, 0.0).sum())
    if not total:
        return RateEstimate(value=math.nan, weights=np.zeros(scores.shape), shares=np.zeros(scores.shape))
    # an out is beaten by as many ins as do not lie below it
    shares = np.divide(beaten, pairs, out=np.zeros(scores.shape), where=pairs > 0)
    weights = np.where(ins, pairs, np.where(outs, -pairs, 0.0)) / total
    value = float(np.where(ins, beaten, 0.0).sum()) / total
    return RateEstimate(value=min(max(value, 0.0), 1.0), weights=weights, shares=shares)


def _count_below(scores: FloatArray, is_counted: BoolArray) -> FloatArray:
    """(R, m) how many of the chosen scores lie below each score, those that equal it counted half; 0 for NaN."""
    ordered = np.sort(scores[is_counted])
    flat = np.nan_to_num(scores)
    below = np.searchsorted(ordered, flat, "left") + np.searchsorted(ordered, flat, "right")
    return np.where(np.isnan(scores), 0.0, below / 2)


def _below_alike(scores: FloatArray, is_counted: BoolArray) -> FloatArray:
    """The same within each column."""
    counts = np.empty(scores.shape)
    step = max(1, _PART // max(len(scores) ** 2, 1))
    for start in range(0, scores.shape[1], step):
        block = scores[:, start : start + step]
        others = np.where(is_counted[:, start : start + step], block, np.nan)
        less, equal = others[None] < block[:, None], others[None] == block[:, None]
        counts[:, start : start + step] = less.sum(1) + 0.5 * equal.sum(1)
    return counts


def tpr(scores: FloatArray, is_in: BoolArray, fpr: float) -> RateEstimate:
    """Share of members above the lowest threshold whose false positive rate is at most `fpr`.

    Arguments as for `auc`. Conservative: equal scores are accepted or refused together, so the realised false positive
    rate never exceeds `fpr`. With all scores equal the answer is 0 (for fpr < 1). A non-member contributes as far as it
    moves the threshold. That is by the slope of the ROC curve there, between half and twice as many false positives.
    Where scores tie near the threshold, it jumps from one tied score to another: see `_slope_of_ties`.

    >>> scores, is_in = np.array([[4.0, 2.0, 3.0, 1.0]]), np.array([[True, True, False, False]])
    >>> [tpr(scores, is_in, fpr).value for fpr in (0.4, 0.5, 1.0)]
    [0.5, 1.0, 1.0]
    """
    is_scored = ~np.isnan(scores)
    ins, outs = is_in & is_scored, ~is_in & is_scored
    n_in, n_out = int(ins.sum()), int(outs.sum())
    if not n_in or not n_out:
        return RateEstimate(value=math.nan, weights=np.zeros(scores.shape), shares=np.zeros(scores.shape))
    inside, outside = np.sort(scores[ins]), np.sort(scores[outs])[::-1]

    def members_above(accepted: int) -> int:
        """Members above the lowest threshold that accepts at most so many outs."""
        return _count_above(inside, outside[accepted] if accepted < n_out else -math.inf)

    allowed = min(math.floor(fpr * n_out * (1 + 1e-12)), n_out)
    fewer, more = allowed // 2, min(2 * allowed, n_out)
    slope = (members_above(more) - members_above(fewer)) / n_in / ((more - fewer) / n_out) if more > fewer else 0.0
    threshold = outside[allowed] if allowed < n_out else -math.inf
    above = np.where(is_scored, scores, -math.inf) > threshold
    value = members_above(allowed) / n_in
    moving = above
    if 0 < value < 1 and allowed < n_out and (tied := _slope_of_ties(inside, outside, allowed)):
        slope = max(slope, tied)
        accepted, with_ties = _count_accepted(outside, threshold)
        if with_ties - allowed < allowed - accepted:
            moving = np.where(is_scored, scores, -math.inf) >= threshold
    weights = np.where(ins, 1 / n_in, np.where(outs, -1 / n_out, 0.0))
    return RateEstimate(value=value, weights=weights, shares=np.where(ins, above, slope * moving))


def _slope_of_ties(inside: FloatArray, outside: FloatArray, allowed: int) -> float:
    """The slope by which false positives count where the threshold may jump to the next tied score; 0 elsewhere.

    `inside` is sorted from the lowest member and `outside` from the highest non-member. The number of false positives
    is uncertain by e = 1.96 √(k (1 − k/n)), k of n being allowed. The threshold may move down by one score if those
    that equal it are at most k + e with those above. It may move up by one if those above are at least k − e. With
    scores that are all distinct, such a move is part of the smooth curve.

    The interval has to hold the rate before and after the jump J, each with its own error h. So it is J + h wide on
    each side. A slope s adds (s e)² to h², so that s e = √(J² + 2 t J h). Here h is binomial, and t is the share of
    non-members within e of the threshold that repeat another's score. Intervals of rates are on the scale of log odds,
    so J is the jump there times v (1 − v).
    """
    n_in, n_out, threshold = len(inside), len(outside), outside[allowed]
    error = 1.96 * math.sqrt(max(allowed, 1) * (1 - allowed / n_out))
    near = outside[max(0, allowed - math.ceil(error)) : allowed + math.ceil(error) + 1]
    accepted, with_ties = _count_accepted(outside, threshold)

    def odds(members: int) -> float:
        rate = min(max(members, 0.5), n_in - 0.5) / n_in
        return math.log(rate / (1 - rate))

    found = _count_above(inside, threshold)
    jumps = [0.0]
    if with_ties - accepted > 1 and with_ties <= allowed + error:
        jumps.append(odds(n_in - int(np.searchsorted(inside, threshold, "left"))) - odds(found))
    if accepted and (outside == outside[accepted - 1]).sum() > 1 and accepted >= allowed - error:
        jumps.append(odds(found) - odds(_count_above(inside, outside[accepted - 1])))
    spread = found / n_in * (1 - found / n_in)
    jump, own = spread * max(jumps), 1.96 * math.sqrt(spread / n_in)
    repeated = 1 - len(np.unique(near)) / len(near)
    return math.sqrt(jump**2 + 2 * repeated * jump * own) / (error / n_out)


def _count_above(inside: FloatArray, refused: float) -> int:
    """Members, sorted from the lowest, whose score exceeds that of the highest refused non-member."""
    return len(inside) - int(np.searchsorted(inside, refused, "right"))


def _count_accepted(outside: FloatArray, threshold: float) -> tuple[int, int]:
    """Non-members above a threshold, and these with the ones that equal it."""
    return int((outside > threshold).sum()), int((outside >= threshold).sum())


def roc_curve(scores: FloatArray, is_in: BoolArray) -> tuple[FloatArray, FloatArray]:
    """The false and the true positive rates at every number of accepted non-members, from none to all.

    Arguments as for `auc`. With n non-members that have a score, both arrays are (n + 1,): the k-th rates are k / n and
    `tpr(scores, is_in, k / n)`. Empty without a member or without a non-member.

    >>> scores, is_in = np.array([[4.0, 2.0, 3.0, 1.0]]), np.array([[True, True, False, False]])
    >>> [rates.tolist() for rates in roc_curve(scores, is_in)]
    [[0.0, 0.5, 1.0], [0.5, 1.0, 1.0]]
    """
    is_scored = ~np.isnan(scores)
    inside, outside = np.sort(scores[is_in & is_scored]), np.sort(scores[~is_in & is_scored])[::-1]
    if not len(inside) or not len(outside):
        return np.zeros(0), np.zeros(0)
    refused = np.append(outside, -math.inf)
    found = len(inside) - np.searchsorted(inside, refused, "right")
    return np.arange(len(refused)) / len(outside), found / len(inside)
