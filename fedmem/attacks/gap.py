"""The gap attack: what a model gets right is called a member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import MembershipGrant, Signals


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Guesses that what the model gets right was trained on (Yeom, Giacomelli, Fredrikson and Jha, 2018).

    The score is 1 where the model is right and 0 where it is wrong; for passages, the share of tokens that it gets
    right. It needs one label from the model, so it is the baseline of all attacks on labels alone.

    - The AUC is ½ + (accuracy on members − accuracy on non-members) / 2;
    - with two scores only, a small false positive rate finds no member;
    - does not read the coins; NaN where the model was not observed.

    >>> margin = np.array([[2.0, -1.0]])
    >>> Gap().scores(Signals(margin=margin, is_in=margin > 0, correct=(margin > 0).astype(float))).tolist()
    [[1.0, 0.0]]

    Reference: Yeom et al. (2018), Privacy risk in machine learning: Analyzing the connection to overfitting.
    """

    title: ClassVar[str] = "gap"
    legend: ClassVar[str] = "attack that calls an example a member if the model predicts its label"
    knows: ClassVar[str] = "the predicted label of one model"
    reads: ClassVar[tuple[MembershipGrant, ...]] = ("correct",)
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    def scores(self, signals: Signals) -> FloatArray:
        """Correctness (R, m)."""
        if signals.correct is None:
            return np.full(signals.margin.shape, np.nan)
        return np.where(np.isnan(signals.margin), np.nan, signals.correct)
