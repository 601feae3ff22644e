"""Min-K%: a text is a member if even the tokens that the model expects least are probable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class MinK:
    """The mean log probability of the share k of a text's tokens that are least probable (Shi et al., 2024).

    The score is `min_k` of the signal `min_k`, whose field `k` is the share, in nats up to 0; higher means member. With
    k = 1 it is the attack by the loss. The attack uses no other model, so a text of common tokens looks like a member.

    - does not read the coins; NaN where the signal was not read.

    >>> import numpy as np
    >>> signals = Signals(
    ...     margin=np.zeros((1, 1)), is_in=np.array([[True]]), signals={"min_k": np.array([[-2.0]])}
    ... )
    >>> MinK().scores(signals).tolist()
    [[-2.0]]

    Reference: Shi et al. (2024), Detecting pretraining data from large language models.
    """

    title: ClassVar[str] = "Min-K%"
    legend: ClassVar[str] = "attack by the log probability of the least probable tokens"
    knows: ClassVar[str] = "the probabilities of the tokens of a text"
    reads_signals: ClassVar[tuple[str, ...]] = ("min_k",)
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    def scores(self, signals: Signals) -> FloatArray:
        """The values of the signal (R, m)."""
        return signals.signals["min_k"]
