"""Difficulty calibration: how much smaller a loss is than models without the example would make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from fedmem.attacks._reference_runs import minus_other_outs
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class Watson:
    """Difficulty-calibrated loss (Watson, Guo, Cormode and Sablayrolles, 2022), leave one run out.

    The score is the mean loss on the example over the other runs without it, minus the loss of the run. It is in nats,
    unbounded; higher means member. The scored run enters no mean. A hard example no longer looks like
    a non-member.

    - A difference is not divided by its spread, so that examples whose losses vary most decide small false positive
      rates;
    - a target that is out has one reference less, which makes its difference noisier. For symmetric losses the AUC
      without memorisation is ½. Losses are skewed, which moves it. So its null is estimated by re-dealt coins;
    - NaN where the margin is NaN, and without a reference.

    >>> import numpy as np
    >>> margin = np.array([[3.0], [0.1], [2.8], [0.0]])
    >>> scores = Watson().scores(Signals(margin=margin, is_in=margin > 1)).ravel()
    >>> scores.round(2).tolist()
    [0.62, 0.05, 0.61, -0.05]

    Reference: Watson et al. (2022), On the importance of difficulty calibration in membership inference attacks.
    """

    title: ClassVar[str] = "calibrated loss"
    legend: ClassVar[str] = "attack by the loss minus its mean over other runs without the example"
    knows: ClassVar[str] = "losses of shadow federations with the same participation schedule, all without the example"
    min_runs: ClassVar[int] = 8
    counts_groups: ClassVar[bool] = True

    def scores(self, signals: Signals) -> FloatArray:
        """Differences of losses (R, m), in nats."""
        return self.scores_under_coins(signals)(signals.is_in)

    def scores_under_coins(self, signals: Signals) -> Callable[[BoolArray], FloatArray]:
        """The scores as a function of the coins (R, m)."""
        return minus_other_outs(-signals.loss)
