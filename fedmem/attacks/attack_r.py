"""The attack by rank among reference runs: how often a model without the example has a larger loss on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class AttackR:
    """Attack R of Ye, Maddi, Murakonda, Bindschaedler and Shokri (2022), leave one run out.

    The score of run r and example j is the share of references whose loss on j is larger, ties counted half. It is from
    0 to 1; higher means member. References are the other runs without j. Where run r has j, the next run without it is
    left out of them, so that members and non-members have equally many references.

    - Without memorisation, members and non-members have the same scores, spread evenly over k + 1 values for k
      references. So the AUC is exactly ½ on average, whatever the losses, if no two are equal. With equal ones that of
      a single example may be .54, and that of many examples is nearer to ½. With unequal numbers of references the TPR
      would exceed the FPR by up to 1 / (k + 1) without any memorisation;
    - with R runs, k is R / 2 − 1. A threshold cannot separate equal scores, so false positive rates below 2 / R find no
      member;
    - NaN where the margin is NaN, and without a reference.

    >>> margin = np.array([[3.0], [0.1], [2.8], [0.0]])
    >>> AttackR().scores(Signals(margin=margin, is_in=margin > 1)).ravel().tolist()
    [1.0, 1.0, 1.0, 0.0]

    Reference: Ye et al. (2022), Enhanced membership inference attacks against machine learning models.
    """

    title: ClassVar[str] = "attack R"
    legend: ClassVar[str] = "attack by the share of other runs without the example that have a larger loss on it"
    knows: ClassVar[str] = "losses of shadow federations with the same participation schedule, all without the example"
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 8
    densities: ClassVar[bool] = True
    counts_groups: ClassVar[bool] = True

    def scores(self, signals: Signals) -> FloatArray:
        """Shares of references with a larger loss (R, m)."""
        return self.scores_under_coins(signals)(signals.is_in)

    def scores_under_coins(self, signals: Signals) -> Callable[[BoolArray], FloatArray]:
        """The scores as a function of the coins (R, m): which run has the larger loss does not depend on them."""
        margin = signals.margin  # a smaller margin is a larger loss, also where losses would be 0
        is_measured = ~np.isnan(margin)
        beaten = (margin[None] < margin[:, None]) + 0.5 * (margin[None] == margin[:, None])
        beaten[np.arange(len(margin)), np.arange(len(margin))] = 0.0

        def scores(is_in: BoolArray) -> FloatArray:
            is_out = is_measured & ~is_in
            count = np.maximum(is_out.sum(0) - 1, 0)
            total = np.einsum("rkj,kj->rj", beaten, is_out.astype(np.float64))
            run, example = np.nonzero(is_measured & is_in & (count > 0))
            total[run, example] -= beaten[run, next_run(is_out)[run, example], example]
            return np.where(is_measured & (count > 0), total / np.maximum(count, 1), np.nan)

        return scores


def next_run(chosen: BoolArray) -> IntArray:
    """The next chosen run after each run (R, m), from the first on again after the last; -1 where none is chosen.

    >>> next_run(np.array([[True], [False], [True], [False]])).ravel().tolist()
    [2, 2, 0, 0]
    """
    runs, following = len(chosen), np.full(chosen.shape, -1)
    latest = np.full(chosen.shape[1], -1)
    for run in [*range(runs - 1, -1, -1)] * 2:
        following[run] = latest
        latest = np.where(chosen[run], run, latest)
    return following
