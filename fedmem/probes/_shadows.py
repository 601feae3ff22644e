"""Guesses of a row from shadow models: the nearest candidate, and a ridge regression of rows on parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, Params

_PENALTIES = np.geomspace(1e-10, 1e4, 29)
"""Penalties of the ridge regression, as multiples of the largest eigenvalue. The largest ones give the mean row."""


def flat(params: Params) -> FloatArray:
    """(P,) all floating entries of a model in their order, in float64."""
    parts = [value.double().reshape(-1).numpy() for value in params.values() if value.is_floating_point()]
    return np.concatenate(parts) if parts else np.zeros(0)


def distances(target: FloatArray, shadows: FloatArray) -> FloatArray:
    """(m,) squared distance of a model (P,) to the mean of the K shadow models of each candidate, (m, K, P).

    With equal Gaussian noise on all entries, the nearest mean is the most probable candidate. A candidate whose shadow
    models are not finite is infinitely far. All are NaN where the model itself is not finite.

    >>> distances(np.array([0.0, 1.0]), np.array([[[0.0, 0.0], [0.0, 2.0]], [[3.0, 1.0], [3.0, 1.0]]])).tolist()
    [0.0, 9.0]
    """
    if not np.isfinite(target).all():
        return np.full(len(shadows), math.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(shadows.mean(axis=1) - target).sum(axis=1)
    return np.asarray(np.where(np.isfinite(squares), squares, np.inf))


def is_nearest(values: FloatArray, place: int) -> float:
    """1 where the value at a place is strictly the smallest of m, else 0; a tie identifies nothing.

    NaN where there is no other value, or where any is NaN. If all orders of m values are equally probable, it is 1
    with probability at most 1/m, and of exactly 1/m without ties.

    >>> is_nearest(np.array([2.0, 1.0]), 1), is_nearest(np.array([1.0, 1.0]), 0), is_nearest(np.array([1.0]), 0)
    (1.0, 0.0, nan)
    """
    if len(values) < 2 or np.isnan(values).any():
        return math.nan
    return float(values[place] < np.delete(values, place).min())


@dataclass(frozen=True)
class Reconstructor:
    """A linear map from the parameters of a model to the row that it was trained on.

    `centre` (P,) and `scale` are of the models of shadow rows alone, and so is the penalty. No target takes part in
    them: standardising targets by their own mean would show what they have in common.
    """

    centre: FloatArray
    scale: float
    mean: FloatArray
    weights: FloatArray

    @staticmethod
    def fit(models: FloatArray, rows: NDArray[Any]) -> Reconstructor | None:
        """Ridge regression of S rows (S, ...) on their shadow models (S, P), with an intercept.

        The penalty is the one with the least squared error of each row from all others, of `_PENALTIES`. This error is
        (y − ŷ) / (1 − h) with the leverage h. Shadow models that are not finite are left out. None with fewer than
        three others. Models without any difference give the mean row.
        """
        finite = np.isfinite(models).all(axis=1)
        models, targets = models[finite], rows[finite].astype(np.float64)
        if len(models) < 3:
            return None
        targets = targets.reshape(len(targets), -1)
        centre, mean = models.mean(axis=0), targets.mean(axis=0)
        scale = float(np.sqrt(np.square(models - centre).mean())) or 1.0
        features, residuals = (models - centre) / scale, targets - mean
        values, vectors = np.linalg.eigh(features @ features.T)
        values = np.clip(values, 0.0, None)
        if not values.max() > 0:
            return Reconstructor(centre, scale, mean, np.zeros((models.shape[1], len(mean))))
        projected = vectors.T @ residuals
        errors = []
        for penalty in _PENALTIES * values.max():
            shares = values / (values + penalty)
            leverage = (np.square(vectors) * shares).sum(axis=1) + 1 / len(models)
            rest = residuals - vectors @ (shares[:, None] * projected)
            with np.errstate(divide="ignore", invalid="ignore"):
                left_out = np.square(rest / (1 - leverage)[:, None]).mean()
            errors.append(float(left_out) if leverage.max() < 1 - 1e-9 else math.inf)
        penalty = _PENALTIES[int(np.argmin(errors))] * values.max()
        dual = vectors @ (projected / (values + penalty)[:, None])
        return Reconstructor(centre, scale, mean, features.T @ dual)

    def predict(self, model: FloatArray) -> FloatArray:
        """(d,) the row that a model (P,) was trained on, with values in [0, 1]; NaN for a model that is not finite."""
        with np.errstate(invalid="ignore", over="ignore"):
            row = self.mean + (model - self.centre) / self.scale @ self.weights
        return np.asarray(np.clip(row, 0.0, 1.0))
