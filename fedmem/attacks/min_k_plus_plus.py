"""Min-K%++: Min-K% with each log probability measured against the model's own distribution of that token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class MinKPlusPlus:
    """The mean z-score of the share k of a text's tokens that score lowest (Zhang et al., 2024).

    The score is `min_k_plus_plus` of the signal `min_k`, whose field `k` is the share. It is in standard deviations,
    unbounded; higher means member. A token where many others are possible does not make a text look like a non-member.
    The attack uses no other model, so what remains of the difficulty of a text still counts.

    - does not read the coins; NaN where the signal was not read.

    >>> import numpy as np
    >>> values = {"min_k_plus_plus": np.array([[-0.5]])}
    >>> signals = Signals(margin=np.zeros((1, 1)), is_in=np.array([[True]]), signals=values)
    >>> MinKPlusPlus().scores(signals).tolist()
    [[-0.5]]

    Reference: Zhang et al. (2024), Min-K%++: improved baseline for detecting pre-training data from large language
    models.
    """

    title: ClassVar[str] = "Min-K%++"
    legend: ClassVar[str] = "attack by the z-scores of the tokens that score lowest"
    knows: ClassVar[str] = "the probabilities of all tokens at each place of a text"
    reads_signals: ClassVar[tuple[str, ...]] = ("min_k_plus_plus",)
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    def scores(self, signals: Signals) -> FloatArray:
        """The values of the signal (R, m)."""
        return signals.signals["min_k_plus_plus"]
