"""Guesses of what a run was trained on, from other runs of which that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.estimation.statistics import jackknife

SHRINKAGES = (1e-4, 1e-2, 0.1, 0.5, 1.0)
"""Weights of the mean variance in the covariance of features; 1 compares by distance alone."""

PENALTIES = np.geomspace(1e-8, 1e4, 13)
"""Penalties of the ridge regression, as multiples of the largest eigenvalue. The largest ones give the mean row."""

GROUPS = 20
"""Groups of candidates that the jackknife leaves out in turn, at most."""

_INNER = 3
"""Folds of shadow runs by which a shrinkage or a penalty is chosen."""


def folds_of(classes: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """(n,) a fold of each case, with nearly as many cases of each class in each fold.

    >>> np.bincount(folds_of(np.array([0, 0, 1, 1]), 2, np.random.default_rng(0))).tolist()
    [2, 2]
    """
    order = rng.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    folds = np.empty(len(classes), dtype=np.int64)
    folds[order] = np.arange(len(classes)) % count
    return folds


def identify(features: FloatArray, classes: IntArray, folds: int, rng: np.random.Generator) -> BoolArray:
    """(n,) whether the candidate of each run is identified by shadow runs, which are those of all other folds.

    The candidate whose shadow runs have the nearest mean is guessed, by the distance d Σ⁻¹ d. Here Σ is the pooled
    covariance of shadow runs of one candidate, shrunk to its mean variance. The shrinkage is the one by which most
    shadow runs are identified by others. Nothing of a target takes part in means, covariance and shrinkage. A tie
    identifies nothing.

    Args:
        features: (n, d) finite features of runs.
        classes: (n,) the number of the candidate that is in.
        folds: Number of folds; at most n are made.
        rng: Deals the folds.
    """
    features = features - features[:1]  # so that equal models are equal to the last bit
    fold = folds_of(classes, min(folds, len(classes)), rng)
    right = np.zeros(len(classes), dtype=bool)
    for number in np.unique(fold):
        is_target = fold == number
        shadows, known = features[~is_target], classes[~is_target]
        inner = folds_of(known, _INNER, rng)
        score = np.zeros(len(SHRINKAGES))
        for part in range(_INNER):
            is_inner = inner == part
            if is_inner.any() and not is_inner.all():
                guesses = _nearest(shadows[~is_inner], known[~is_inner], shadows[is_inner])
                score += (guesses == known[is_inner]).sum(axis=1)
        best = len(score) - 1 - int(np.argmax(score[::-1]))
        right[is_target] = _nearest(shadows, known, features[is_target])[best] == classes[is_target]
    return right


def _nearest(shadows: FloatArray, known: IntArray, targets: FloatArray) -> IntArray:
    """(len(SHRINKAGES), t) the candidate with the nearest mean; -1 where two are as near."""
    names, place, counts = np.unique(known, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return np.full((len(SHRINKAGES), len(targets)), -1)
    means = np.zeros((len(names), shadows.shape[1]))
    np.add.at(means, place, shadows)
    means /= counts[:, None]
    rest = shadows - means[place]
    values, vectors = np.linalg.eigh(rest.T @ rest / max(len(shadows) - len(names), 1))
    values = np.clip(values, 0.0, None)
    gaps = (targets[:, None] - means) @ vectors
    guesses = []
    for shrinkage in SHRINKAGES:
        variance = (1 - shrinkage) * values + shrinkage * values.mean()
        squares = (np.square(gaps) / (variance if variance.min() > 0 else 1.0)).sum(axis=2)
        two = np.partition(squares, 1, axis=1)[:, :2]
        is_clear = two[:, 0] < two[:, 1]
        guesses.append(np.where(is_clear, names[squares.argmin(axis=1)], -1))
    return np.array(guesses)


@dataclass(frozen=True, kw_only=True)
class Gains:
    """How much better guesses of rows are than two guesses without the model, in dB.

    Attributes:
        over_mean: (m,) gain over the mean row of shadow runs, of each candidate; NaN where there is none.
        over_best: (m,) the same over the better of that mean and the shadow row that is nearest to the truth.
        mean: Means of both over candidates.
        interval: 95 % intervals of both means.
    """

    over_mean: FloatArray
    over_best: FloatArray
    mean: tuple[float, float]
    interval: tuple[tuple[float, float], tuple[float, float]]


def reconstruct(
    features: FloatArray, classes: IntArray, rows: FloatArray, folds: int, rng: np.random.Generator
) -> Gains:
    """Guesses of rows by a ridge regression on shadow runs, none of which was trained on the row of the target.

    Candidates are dealt into folds, and the shadow runs of a target are those of candidates in other folds. The penalty
    is the one with the least error on shadow candidates by other shadow candidates. Guesses are cut to the range
    of shadow rows. The gain of a run is 10 log10 of the error without the model divided by that of the guess. The
    latter counts as at least 1e-12 of the former. Runs of a candidate are averaged.

    Equal runs give the mean row of shadow runs, so that the gain over it is 0. Each guess depends on other candidates.
    So the interval is by a jackknife that leaves out up to `GROUPS` groups of candidates, and keeps the folds of all
    others. Student's interval of independent candidates would be too short.

    Args:
        features: (n, d) finite features of runs.
        classes: (n,) the number of the candidate that is in, below m.
        rows: (m, p) the rows of the candidates.
        folds: Number of folds; at most half of the candidates are made, so that each has two or more.
        rng: Deals the folds.

    Returns:
        The gains; all NaN with fewer than four candidates.
    """
    m = len(rows)
    if m < 4:
        nothing = (math.nan, math.nan)
        none = np.full(m, math.nan)
        return Gains(over_mean=none, over_best=none, mean=nothing, interval=(nothing, nothing))
    rotated = _rotate_short(features - features[:1])  # so that equal models are equal to the last bit
    place = np.empty(m, dtype=np.int64)
    place[rng.permutation(m)] = np.arange(m)
    count = min(folds, m // 2)
    deal = np.stack([place % count, place // count % _INNER])
    over_mean, over_best = _gains(rotated, classes, rows, deal)
    means = [[_mean(over_mean), _mean(over_best)]]
    for group in range(min(GROUPS, m)):
        stays = place % min(GROUPS, m) != group
        runs, numbers = stays[classes], np.cumsum(stays) - 1
        fewer = _gains(rotated[runs], numbers[classes[runs]], rows[stays], deal[:, stays])
        means.append([_mean(gains) for gains in fewer])
    whole, without = means[0], np.array(means[1:])
    first, second = (jackknife(whole[column], without[:, column]) for column in (0, 1))
    return Gains(over_mean=over_mean, over_best=over_best, mean=(whole[0], whole[1]), interval=(first, second))


def _rotate_short(features: FloatArray) -> FloatArray:
    """(n, min(n, d)) rotated features, from which a ridge regression makes the same guesses."""
    if features.shape[1] <= len(features):
        return features
    left, lengths, _ = np.linalg.svd(features, full_matrices=False)
    return np.asarray(left * lengths)


def _mean(gains: FloatArray) -> float:
    known = gains[np.isfinite(gains)]
    return float(known.mean()) if len(known) else math.nan


def _gains(features: FloatArray, classes: IntArray, rows: FloatArray, deal: IntArray) -> tuple[FloatArray, FloatArray]:
    """(m,), (m,) the gains of `Gains`, with the outer and the inner fold of each candidate (2, m)."""
    m = len(rows)
    guesses = np.full((len(features), rows.shape[1]), math.nan)
    of_mean, of_best = np.full(m, math.nan), np.full(m, math.nan)
    for number in np.unique(deal[0]):
        is_target, is_shadow = deal[0] == number, deal[0] != number
        runs = is_target[classes]
        guesses[runs] = _ridge(features[~runs], rows, classes[~runs], features[runs], deal[1])
        to_mean = np.square(rows[is_target] - rows[classes[~runs]].mean(axis=0)).mean(axis=1)
        to_shadows = np.square(rows[is_target][:, None] - rows[is_shadow]).mean(axis=2).min(axis=1)
        of_mean[is_target], of_best[is_target] = to_mean, np.minimum(to_mean, to_shadows)
    error = np.square(guesses - rows[classes]).mean(axis=1)
    return _decibels(error, of_mean, classes), _decibels(error, of_best, classes)


def _decibels(error: FloatArray, without: FloatArray, classes: IntArray) -> FloatArray:
    """(m,) mean gains of the runs of each candidate; NaN where the guess without the model is exact."""
    m, is_known = len(without), without > 0
    ratio = np.maximum(error / np.where(is_known, without, 1.0)[classes], 1e-12)
    counts = np.bincount(classes, minlength=m)
    sums = np.bincount(classes, weights=-10 * np.log10(ratio), minlength=m)
    return np.where(is_known & (counts > 0), sums / np.maximum(counts, 1), math.nan)


def _ridge(shadows: FloatArray, rows: FloatArray, known: IntArray, targets: FloatArray, inner: IntArray) -> FloatArray:
    """(t, p) the guesses for targets, with a penalty chosen on shadow runs by the inner folds of their candidates."""
    names, fold = np.unique(known), inner[known]
    errors = np.zeros(len(PENALTIES))
    for number in np.unique(fold):
        is_inner = fold == number
        if not is_inner.all():
            guesses = _paths(shadows[~is_inner], rows[known[~is_inner]], shadows[is_inner])
            errors += np.square(guesses - rows[known[is_inner]]).sum(axis=(1, 2))
    best = len(errors) - 1 - int(np.argmin(errors[::-1]))
    return np.asarray(np.clip(_paths(shadows, rows[known], targets)[best], rows[names].min(), rows[names].max()))


def _paths(shadows: FloatArray, truth: FloatArray, targets: FloatArray) -> FloatArray:
    """(len(PENALTIES), t, p) the guesses of ridge regressions with an intercept, by the models and rows of shadows."""
    centre, mean = shadows.mean(axis=0), truth.mean(axis=0)
    centred = shadows - centre
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values = np.clip(values, 0.0, None)
    if not values.max(initial=0.0) > 0:
        return np.tile(mean, (len(PENALTIES), len(targets), 1))
    products = vectors.T @ (centred.T @ (truth - mean))
    directions = (targets - centre) @ vectors
    return np.stack(
        [mean + directions @ (products / (values + penalty * values.max())[:, None]) for penalty in PENALTIES]
    )
