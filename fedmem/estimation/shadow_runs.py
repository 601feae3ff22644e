"""Guesses of what a run was trained on, from other runs of which that is known."""

from __future__ import annotations

import math

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray

SHRINKAGES = (1e-4, 1e-2, 0.1, 0.5, 1.0)
"""Weights of the mean variance in the covariance of features; 1 compares by distance alone."""

PENALTIES = np.geomspace(1e-8, 1e4, 13)
"""Penalties of the ridge regression, as multiples of the largest eigenvalue. The largest ones give the mean row."""

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


def reconstruct(
    features: FloatArray, classes: IntArray, rows: FloatArray, folds: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Guesses of rows by a ridge regression on shadow runs, none of which was trained on the row of the target.

    Candidates are dealt into folds, and the shadow runs of a target are those of candidates in other folds. The penalty
    is the one with the least error on shadow candidates by other shadow candidates. Guesses are cut to the range
    of shadow rows.

    Args:
        features: (n, d) finite features of runs.
        classes: (n,) the number of the candidate that is in, below m.
        rows: (m, p) the rows of the candidates.
        folds: Number of folds; at most half of the candidates are made, so that each has two or more.
        rng: Deals the folds.

    Returns:
        (n,) the squared error of the guess. (n,) the smaller squared error of two guesses without the model. These are
        the mean of shadow rows, and the shadow row that is nearest to the truth. (m, m) which candidates share a fold.
        All errors are NaN with fewer than four candidates.
    """
    m = len(rows)
    if m < 4:
        return np.full(len(features), math.nan), np.full(len(features), math.nan), np.eye(m, dtype=bool)
    fold = folds_of(np.zeros(m, dtype=np.int64), min(folds, m // 2), rng)
    guesses, prior = np.full((len(features), rows.shape[1]), math.nan), np.full(len(features), math.nan)
    for number in np.unique(fold):
        is_target = fold[classes] == number
        known = classes[~is_target]
        guesses[is_target] = _ridge(features[~is_target], rows, known, features[is_target], rng)
        shadow_rows = rows[fold != number]
        without = np.concatenate([shadow_rows, shadow_rows.mean(axis=0, keepdims=True)])
        best = np.square(without[:, None] - rows[None]).mean(axis=2).min(axis=0)
        prior[is_target] = best[classes[is_target]]
    error = np.square(guesses - rows[classes]).mean(axis=1)
    return error, prior, np.equal.outer(fold, fold)


def _ridge(
    shadows: FloatArray, rows: FloatArray, known: IntArray, targets: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """(t, p) the guesses for targets, with a penalty chosen on shadow runs by folds of their candidates."""
    names, place = np.unique(known, return_inverse=True)
    fold = folds_of(np.zeros(len(names), dtype=np.int64), min(_INNER, len(names)), rng)[place]
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
