"""The attack by modified entropy, with a threshold for each class that shadow runs give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import MembershipGrant, Signals


@dataclass(frozen=True, kw_only=True)
class ModifiedEntropy:
    """Modified entropy with class thresholds (Song and Mittal, 2021), leave one run out.

    The score is τ_y minus the signal `modified_entropy`, −(1 − p_y) log p_y − Σ over c ≠ y of p_c log(1 − p_c). It is
    in nats; higher means member, and above 0 the authors' attack says member. The threshold τ_y is the one that best
    separates members from non-members of the same kind and class. It maximises the share of members below it minus that
    of non-members. It is learnt from the other examples in the other runs.

    - Without `by_class` there is no threshold (τ = 0): one model is enough, no coin is read, and hard classes look like
      non-members;
    - a class that few audit examples have gets a noisy threshold. The score is NaN where the others lack members or
      non-members of it;
    - a threshold depends on coins, so the null is estimated by re-dealt coins;
    - NaN where the signal is NaN.

    Fields:
        by_class: Subtract from a threshold for each class, which other runs give.

    >>> entropy = np.array([[0.1, 1.2], [1.0, 0.3], [0.2, 0.9], [0.8, 0.4]])
    >>> is_in, labels = entropy < 0.5, np.zeros(2, int)
    >>> signals = Signals(margin=-entropy, is_in=is_in, labels=labels, signals={"modified_entropy": entropy})
    >>> ModifiedEntropy().scores(signals).round(2).tolist()
    [[0.55, -0.7], [-0.35, 0.2], [0.6, -0.45], [-0.2, 0.2]]

    Reference: Song and Mittal (2021), Systematic evaluation of privacy risks of machine learning models.
    """

    title: ClassVar[str] = "modified entropy"
    legend: ClassVar[str] = "attack by an entropy that is 0 only for a confident and correct prediction"
    knows: ClassVar[str] = (
        "probabilities of one model; with by_class, also of shadow runs with and without examples of the same kind"
    )
    counts_groups: ClassVar[bool] = True
    reads_signals: ClassVar[tuple[str, ...]] = ("modified_entropy",)

    by_class: bool = True

    @property
    def reads(self) -> tuple[MembershipGrant, ...]:
        """Labels, for thresholds by class."""
        return ("labels",) if self.by_class else ()

    @property
    def reads_coins(self) -> bool:
        """Whether other runs give its thresholds."""
        return self.by_class

    @property
    def null_auc(self) -> float | None:
        """The AUC without memorisation, known where no coin is read."""
        return None if self.by_class else 0.5

    @property
    def min_runs(self) -> int:
        """Thresholds are from the other runs."""
        return 8 if self.by_class else 2

    def scores(self, signals: Signals) -> FloatArray:
        """Thresholds minus modified entropies (R, m), in nats."""
        return self.scores_under_coins(signals)(signals.is_in)

    def scores_under_coins(self, signals: Signals) -> Callable[[BoolArray], FloatArray]:
        """The scores as a function of the coins (R, m)."""
        entropy = signals.signals["modified_entropy"]
        if not self.by_class or signals.labels is None:
            return lambda is_in: -entropy
        labels = signals.labels
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        learn = [thresholds_by_others(entropy[:, columns]) for columns in classes]

        def scores(is_in: BoolArray) -> FloatArray:
            result = np.full(entropy.shape, np.nan)
            for columns, thresholds in zip(classes, learn, strict=True):
                result[:, columns] = thresholds(is_in[:, columns])
            return result - entropy

        return scores


def thresholds_by_others(values: FloatArray) -> Callable[[BoolArray], FloatArray]:
    """For each run and example (R, m), the threshold below which the share of members exceeds that of non-members most.

    It is a function of the coins (R, m). The run and the example themselves are left out. Shares are compared, so that
    both sides weigh the same. A threshold lies midway between two values, or at the largest. NaN where the value is
    NaN, and where the others lack one side.

    >>> values = np.array([[0.0, 4.0], [1.0, 3.0], [0.2, 5.0], [3.5, 0.6]])
    >>> thresholds_by_others(values)(values < 2)[0].tolist()
    [1.8, 2.25]
    """
    run, column = np.nonzero(~np.isnan(values))
    order = np.argsort(values[run, column], kind="stable")
    run, column = run[order], column[order]
    ordered, size = values[run, column], len(order)
    # (N, N): row by target, in ascending order of the values of the others
    is_other = (run[:, None] != run) & (column[:, None] != column)
    after = np.where(is_other, np.arange(size), size)[:, ::-1]
    following = np.minimum.accumulate(after, axis=1)[:, ::-1]
    following = np.concatenate([following[:, 1:], np.full((size, 1), size)], axis=1)
    padded = np.append(ordered, np.inf)
    is_step = is_other & (padded[following] > ordered)  # no threshold between equal values

    def thresholds(is_in: BoolArray) -> FloatArray:
        result, members = np.full(values.shape, np.nan), is_in[run, column]
        if not size:
            return result
        inside, outside = (np.cumsum(is_other & side, axis=1, dtype=np.int32) for side in (members, ~members))
        num_in, num_out = inside[:, -1:], outside[:, -1:]
        gain = inside / np.maximum(num_in, 1) - outside / np.maximum(num_out, 1)
        best = np.where(is_step, gain, -np.inf).argmax(axis=1)
        upper = padded[following[np.arange(size), best]]
        middle = np.where(np.isfinite(upper), (ordered[best] + np.minimum(upper, ordered[-1])) / 2, ordered[best])
        result[run, column] = np.where((num_in > 0) & (num_out > 0), middle[:, None], np.nan)[:, 0]
        return result

    return thresholds
