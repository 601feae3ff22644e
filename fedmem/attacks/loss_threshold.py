"""The loss threshold attack: the control that every calibrated attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class LossThreshold:
    """Guesses that what has a small loss was trained on (Yeom, Giacomelli, Fredrikson and Jha, 2018).

    The score is −loss = −log(1 + exp(−margin)), in nats, at most 0; higher means member. It is not calibrated: an easy
    example looks like a member whether or not it is one. So an AUC near one half says little about memorisation.

    - does not read the coins; NaN where the margin is NaN.

    >>> import numpy as np
    >>> signals = Signals(margin=np.array([[0.0, 2.0]]), is_in=np.array([[True, False]]))
    >>> LossThreshold().scores(signals).round(3).tolist()
    [[-0.693, -0.127]]
    """

    title: ClassVar[str] = "loss threshold"
    legend: ClassVar[str] = "attack that calls an example with a low loss a member"
    knows: ClassVar[str] = "the loss"
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2
    densities: ClassVar[bool] = True

    def scores(self, signals: Signals) -> FloatArray:
        """Negative losses (R, m) from margins (R, m)."""
        return -signals.loss
