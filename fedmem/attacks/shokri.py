"""Shadow classifiers: for each class, a classifier that distinguishes members from non-members by predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import MembershipGrant, Signals
from fedmem.contracts.signal import per_class_of

_SMALLEST = 1e-30
"""Smallest probability whose logarithm is formed."""

_SHRINKAGE = 0.1
"""Share of the covariance that is replaced by its diagonal."""


@dataclass(frozen=True, kw_only=True)
class Shokri:
    """Shadow-model attack of Shokri, Stronati, Song and Shmatikov (2017), leave one run and one example out.

    For each class there is a classifier of members. Its features are log p of the label, and the logarithms of the
    largest other probabilities in descending order. It learns from the other examples of the same kind and label in the
    other runs, where the coins say who is a member. The score is its log likelihood ratio for two normal laws with one
    covariance, μ_in and μ_out the means: (μ_in − μ_out)ᵀ Σ⁻¹ (x − (μ_in + μ_out) / 2). It is in nats; higher means
    member.

    - The authors train a neural network for each class, on thousands of predictions. With some hundred, a linear
      classifier is what can be learnt. The three largest probabilities are as good as all (Salem et al., 2019);
    - one classifier serves all examples of a class. Unlike `lira`, it ignores how difficult single examples are;
    - neither the run nor the example that is scored is learnt from. The AUC without memorisation is then .495 with 8
      runs in a simulation, and nearer to ½ with more. The null is estimated by re-dealt coins;
    - NaN where the signal is NaN, and where fewer than two members or non-members of a class are left.

    Fields:
        others: How many probabilities of other classes are features.

    >>> Shokri().reads_signals
    ('probability',)

    Reference: Shokri et al. (2017), Membership inference attacks against machine learning models. Salem et al. (2019),
    ML-Leaks.
    """

    title: ClassVar[str] = "shadow classifier"
    legend: ClassVar[str] = "attack by a classifier of predicted probabilities, learnt from other runs for each class"
    knows: ClassVar[str] = (
        "probabilities of one model, and those of shadow runs with and without examples of the same kind and label"
    )
    reads: ClassVar[tuple[MembershipGrant, ...]] = ("labels",)
    reads_signals: ClassVar[tuple[str, ...]] = ("probability",)
    min_runs: ClassVar[int] = 8
    counts_groups: ClassVar[bool] = True

    others: Annotated[int, Ge(0)] = 3

    def scores(self, signals: Signals) -> FloatArray:
        """Log likelihood ratios (R, m), in nats."""
        return self.scores_under_coins(signals)(signals.is_in)

    def scores_under_coins(self, signals: Signals) -> Callable[[BoolArray], FloatArray]:
        """The scores as a function of the coins (R, m)."""
        probability, labels = per_class_of(signals.signals, "probability"), signals.labels
        if probability is None or labels is None:
            return lambda is_in: np.full(signals.margin.shape, np.nan)
        features = predicted_features(probability, labels, self.others)
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        learn = [discriminants(features[:, columns]) for columns in groups]

        def scores(is_in: BoolArray) -> FloatArray:
            result = np.full(is_in.shape, np.nan)
            for columns, score in zip(groups, learn, strict=True):
                result[:, columns] = score(is_in[:, columns])
            return result

        return scores


def predicted_features(probability: FloatArray, labels: IntArray, others: int) -> FloatArray:
    """log p of the label and of so many other classes, largest first (R, m, d), from probabilities (R, m, C).

    >>> predicted_features(np.array([[[0.125, 0.5, 0.375]]]), np.array([2]), 1).round(3).tolist()
    [[[-0.981, -0.693]]]
    """
    with np.errstate(invalid="ignore"):
        log_p = np.log(np.maximum(probability, _SMALLEST))
    place = np.broadcast_to(labels[None, :, None], (*log_p.shape[:2], 1))
    own = np.take_along_axis(log_p, place, axis=2)
    rest = log_p.copy()
    np.put_along_axis(rest, place, -np.inf, axis=2)
    ordered = -np.sort(-rest, axis=2)[:, :, : min(others, log_p.shape[2] - 1)]
    return np.concatenate([own, ordered], axis=2)


def discriminants(features: FloatArray) -> Callable[[BoolArray], FloatArray]:
    """Log likelihood ratios (R, m) of examples of one class by linear discriminants, as a function of the coins (R, m).

    The discriminant of a cell is learnt from all cells of other runs and other examples.
    """
    is_measured = np.asarray(~np.isnan(features).any(axis=2))
    values = np.where(is_measured[..., None], features, 0.0)
    squares = _without_own(np.einsum("rji,rjk->rjik", values, values))

    def scores(is_in: BoolArray) -> FloatArray:
        sides = [is_measured & is_in, is_measured & ~is_in]
        counts = [_without_own(side.astype(np.float64)[..., None]) for side in sides]
        means = [
            _without_own(values * side[..., None]) / np.maximum(count, 1.0)
            for side, count in zip(sides, counts, strict=True)
        ]
        products = [
            count[..., None] * mean[..., :, None] * mean[..., None, :]
            for count, mean in zip(counts, means, strict=True)
        ]
        within = squares - products[0] - products[1]
        within = within / np.maximum(counts[0] + counts[1] - 2, 1.0)[..., None]
        diagonal = np.einsum("rjii->rji", within)
        covariance = (1 - _SHRINKAGE) * within + np.eye(features.shape[2]) * (
            _SHRINKAGE * np.maximum(diagonal, 0.0) + 1e-9
        )[..., None]
        direction = np.linalg.solve(covariance, (means[0] - means[1])[..., None])[..., 0]
        ratio = (direction * (values - (means[0] + means[1]) / 2)).sum(axis=2)
        is_defined = is_measured & (counts[0][..., 0] > 1) & (counts[1][..., 0] > 1)
        return np.where(is_defined, ratio, np.nan)

    return scores


def _without_own(cells: FloatArray) -> FloatArray:
    """Sums over all cells (R, m, ...) that share neither the run nor the example of a cell."""
    rows, columns = cells.sum(axis=1, keepdims=True), cells.sum(axis=0, keepdims=True)
    return np.asarray(cells.sum(axis=(0, 1), keepdims=True) - rows - columns + cells)
