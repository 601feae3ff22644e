"""AUC of a linear attack that never trains on the two cases that it compares.

The attack is ridge regression of labels ±1 on features, with an intercept that is not penalised. With two classes its
direction is that of Fisher's linear discriminant, with a covariance that is shrunk to a multiple of the identity. A
pair of one case of each class is left out, and the attack is fitted on all other cases. The pair is concordant where
the positive case scores higher. The AUC is the share of concordant pairs.

Scores of single left-out cases must not be pooled. Each is left out of another mean, so that without any signal their
AUC is far below ½. Within a pair both scores are from one fit, so that without a signal the AUC is ½ on average
(Airola et al., 2011).

The prediction for a left-out set F follows from one fit as y_F − (I − H_FF)⁻¹ (y − Hy)_F. The smoother H does not
depend on labels. So every pair and every deal of labels costs a few products.

`transfer_area` trains on other groups and other cases instead, in random halves of the cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.estimation.statistics import jackknife, wilson

TIE = 1e-9
"""Scores of a pair that differ by less are equal; labels are ±1."""

_PART = 2**20
"""Pairs of cases that are compared at once."""

_BLOCKS = 64
"""The most blocks of cases that a jackknife leaves out."""


@dataclass(frozen=True, kw_only=True)
class PairArea:
    """An AUC from left-out pairs.

    Attributes:
        value: The share of concordant pairs, ties counted half; NaN where a class has fewer than two cases.
        low: Lower end of its interval (95 %): the hull of a jackknife over cases and of Wilson's for disjoint pairs.
        high: Upper end.
        p: Share of all deals of labels with an AUC at least as large, the actual one among them; NaN without deals.
        n: The number of cases with features in some group.
        deals: The number of further deals behind p.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    deals: int


def pair_area(groups: Sequence[tuple[FloatArray, BoolArray]], penalty: float) -> PairArea:
    """The AUC over groups of the same cases, each with an attack of its own.

    Args:
        groups: Features (R, d) of the R cases, and labels (P + 1, R), for each group. Cases with NaN are left out. The
            first labels are the actual ones, the others further deals.
        penalty: The ridge as a multiple of the mean variance along the directions in which features vary.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(40) % 2 == 0
    >>> x = rng.normal(size=(40, 3)) + 4 * labels[:, None]
    >>> pair_area([(x, labels[None])], 1.0).value > 0.95
    True

    References: Airola, Pahikkala, Waegeman, De Baets and Salakoski (2011), An experimental comparison of
    cross-validation techniques for estimating the area under the ROC curve.
    """
    won, pairs = _sums(groups, penalty)
    areas = np.divide(won, pairs, out=np.full(len(won), math.nan), where=pairs > 0)
    has_features = [np.isfinite(features).all(axis=1) for features, _ in groups]
    cases = np.flatnonzero(np.any(has_features, axis=0)) if groups else np.zeros(0, dtype=np.int64)
    if not len(areas) or math.isnan(areas[0]):
        return PairArea(value=math.nan, low=math.nan, high=math.nan, p=math.nan, n=len(cases), deals=0)
    value = float(areas[0])
    low, high = _interval(groups, penalty, value, cases)
    return PairArea(value=value, low=low, high=high, p=upper_p(areas), n=len(cases), deals=len(areas) - 1)


def transfer_area(groups: Sequence[tuple[FloatArray, BoolArray]], penalty: float, halves: BoolArray) -> PairArea:
    """The AUC over groups of the same cases, each attacked by what was fitted on the other groups in other cases.

    The cases are split by `halves`. An attack is fitted on one half in all other groups, and compares pairs of the
    other half in this group. Features and labels of a group are measured from their means over the cases of the fit.

    Args:
        groups: As in `pair_area`.
        penalty: As in `pair_area`.
        halves: (H, R) the cases of one half, for each of H splits.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.permuted(np.tile(np.arange(40) % 2 == 0, (3, 1)), axis=1)
    >>> groups = [(rng.normal(size=(40, 2)) + 4 * one[:, None], one[None]) for one in labels]
    >>> transfer_area(groups, 1.0, rng.permuted(np.tile(np.arange(40) < 20, (4, 1)), axis=1)).value > 0.95
    True
    """
    deals, cases = groups[0][1].shape if groups else (0, 0)
    usable = [np.isfinite(features).all(axis=1) for features, _ in groups]
    known = np.flatnonzero(np.any(usable, axis=0)) if groups else np.zeros(0, dtype=np.int64)
    won, pairs = np.zeros(deals), np.zeros(deals)
    won_by_case, pairs_by_case = np.zeros(cases), np.zeros(cases)
    for half in halves:
        for fitted in (half, ~half):
            for place, (features, labels) in enumerate(groups):
                others = [other for other in range(len(groups)) if other != place]
                train = [(groups[other], np.flatnonzero(fitted & usable[other])) for other in others]
                tested = np.flatnonzero(~fitted & usable[place])
                direction = fit_direction(
                    [(group[0][rows], group[1][:, rows]) for group, rows in train if len(rows) > 1], penalty
                )
                if direction is None or len(tested) < 2:
                    continue
                scores = (features[tested] - features[tested].mean(axis=0)) @ direction
                score, is_pair = _compare(scores.T, labels[:, tested])
                won, pairs = won + score.sum(axis=(1, 2)), pairs + is_pair.sum(axis=(1, 2))
                won_by_case[tested] += score[0].sum(axis=0) + score[0].sum(axis=1)
                pairs_by_case[tested] += is_pair[0].sum(axis=0) + is_pair[0].sum(axis=1)
    if not deals or not pairs[0]:
        return PairArea(value=math.nan, low=math.nan, high=math.nan, p=math.nan, n=len(known), deals=0)
    areas = np.divide(won, pairs, out=np.full(deals, math.nan), where=pairs > 0)
    rest = pairs[0] - pairs_by_case[known]
    without = np.divide(won[0] - won_by_case[known], rest, out=np.full(len(known), math.nan), where=rest > 0)
    low, high = hull(float(areas[0]), without, np.array([labels[0] for _, labels in groups]))
    return PairArea(value=float(areas[0]), low=low, high=high, p=upper_p(areas), n=len(known), deals=deals - 1)


def fit_direction(parts: Sequence[tuple[FloatArray, BoolArray]], penalty: float) -> FloatArray | None:
    """(d, P + 1) the weights of the attack under each deal of labels; None where there is nothing to fit."""
    if not parts:
        return None
    features = np.concatenate([part - part.mean(axis=0) for part, _ in parts])
    targets = [np.where(labels, 1.0, -1.0) for _, labels in parts]
    target = np.concatenate([one - one.mean(axis=1, keepdims=True) for one in targets], axis=1)
    largest = float(np.abs(features).max(initial=0.0))
    if largest == 0.0:
        return np.zeros((features.shape[1], len(target)))
    features = features / largest
    kernel = features @ features.T
    ridge = penalty * float(np.trace(kernel)) / min(len(kernel), features.shape[1])
    return np.asarray(features.T @ np.linalg.solve(kernel + ridge * np.eye(len(kernel)), target.T))


def _compare(scores: FloatArray, labels: BoolArray) -> tuple[FloatArray, BoolArray]:
    """(D, n, n) each: of each positive and negative case, whether it is concordant (½ for a tie), and is a pair."""
    difference = scores[:, :, None] - scores[:, None]
    is_pair = labels[:, :, None] & ~labels[:, None]
    tie = TIE * np.maximum(np.abs(scores).max(axis=1, initial=0.0), 1e-300)[:, None, None]
    return np.where(is_pair, np.where(np.abs(difference) <= tie, 0.5, difference > 0), 0.0), is_pair


def upper_p(statistics: FloatArray) -> float:
    """The share of P + 1 equally likely values at least as large as the first; NaN counts as large.

    NaN where the first is the only one.

    >>> upper_p(np.array([0.9, 0.5, 0.9, 0.1])), upper_p(np.array([0.9]))
    (0.5, nan)
    """
    if len(statistics) < 2 or math.isnan(statistics[0]):
        return math.nan
    return float((np.isnan(statistics) | (statistics >= statistics[0] - TIE)).mean())


def smoother(features: FloatArray, penalty: float) -> FloatArray:
    """(n, n) the matrix that maps labels to fitted values, from finite features (n, d).

    >>> smoother(np.zeros((4, 2)), 1.0).tolist()[0]
    [0.25, 0.25, 0.25, 0.25]
    """
    n = len(features)
    # scaled first, so that neither squares of large nor of small features leave the range of numbers
    centred = features - features.mean(axis=0)
    largest = float(np.abs(centred).max(initial=0.0))
    mean = np.full((n, n), 1.0 / n)
    if largest <= 1e-12 * float(np.abs(features).max(initial=0.0)):
        return mean
    centred = centred / largest
    kernel = centred @ centred.T
    ridge = penalty * float(np.trace(kernel)) / min(n - 1, features.shape[1])
    return np.asarray(mean + np.linalg.solve(kernel + ridge * np.eye(n), kernel))


def concordant_pairs(hat: FloatArray, labels: BoolArray) -> tuple[FloatArray, FloatArray]:
    """(D,) each: concordant pairs, ties counted half, and pairs, under D deals of labels (D, n).

    No pairs where a class has fewer than two cases, since the fit without the pair would then know one class alone.
    """
    deals, n = labels.shape
    won, pairs = np.zeros(deals), np.zeros(deals)
    slack, off = 1.0 - np.diag(hat), -hat
    gap = slack[:, None] * slack[None] - off**2
    with np.errstate(divide="ignore", invalid="ignore"):
        first = (slack[None] + off) / gap
        second = (slack[:, None] + off) / gap
    step = max(1, _PART // max(n * n, 1))
    for start in range(0, deals, step):
        chosen = labels[start : start + step]
        residual = np.where(chosen, 1.0, -1.0)
        residual = residual - residual @ hat
        # the difference of the scores of a positive and a negative case, each without both in the fit
        difference = 2.0 - (first * residual[:, :, None] - second * residual[:, None])
        is_pair = chosen[:, :, None] & ~chosen[:, None]
        is_pair &= ((chosen.sum(axis=1) > 1) & ((~chosen).sum(axis=1) > 1))[:, None, None]
        score = np.where(np.abs(difference) <= TIE, 0.5, difference > 0)
        won[start : start + step] = np.where(is_pair, score, 0.0).sum(axis=(1, 2))
        pairs[start : start + step] = is_pair.sum(axis=(1, 2))
    return won, pairs


def _sums(groups: Sequence[tuple[FloatArray, BoolArray]], penalty: float) -> tuple[FloatArray, FloatArray]:
    """(P + 1,) concordant pairs and pairs of all groups."""
    deals = len(groups[0][1]) if groups else 0
    won, pairs = np.zeros(deals), np.zeros(deals)
    for features, labels in groups:
        usable = np.isfinite(features).all(axis=1)
        if usable.sum() < 4:
            continue
        more_won, more_pairs = concordant_pairs(smoother(features[usable], penalty), labels[:, usable])
        won, pairs = won + more_won, pairs + more_pairs
    return won, pairs


def _interval(
    groups: Sequence[tuple[FloatArray, BoolArray]], penalty: float, value: float, cases: IntArray
) -> tuple[float, float]:
    """The hull of a jackknife over cases, with a new fit, and Wilson's interval for as many pairs as are disjoint.

    Near 0 and 1, a jackknife is too narrow or has no spread at all.
    """
    without = []
    for block in np.array_split(cases, min(len(cases), _BLOCKS)):
        rest = [
            (np.delete(features, block, axis=0), np.delete(labels[:1], block, axis=1)) for features, labels in groups
        ]
        won, pairs = _sums(rest, penalty)
        without.append(float(won[0] / pairs[0]) if pairs[0] else math.nan)
    return hull(value, np.array(without), np.array([labels[0] for _, labels in groups]))


def hull(value: float, without: FloatArray, labels: BoolArray) -> tuple[float, float]:
    """A jackknife from values without a case, and Wilson's interval of pairs that are disjoint under labels (G, R)."""
    # groups with the same labels are one draw
    draws = np.unique(labels, axis=0)
    disjoint = int(np.minimum(draws.sum(axis=1), (~draws).sum(axis=1)).sum())
    ends = np.array([jackknife(value, without), [float(end) for end in wilson(value * disjoint, disjoint)]])
    return max(0.0, float(np.nanmin(ends[:, 0]))), min(1.0, float(np.nanmax(ends[:, 1])))
