"""A membership attack by the probability of the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Guesses that what has a likely label was trained on.

    Fields: none.

    >>> signals = Signals(margin=np.array([[0.0, 2.0]]), is_in=np.array([[True, False]]))
    >>> Confidence().scores(signals).round(3).tolist()
    [[0.5, 0.881]]
    """

    knows: ClassVar[str] = "the loss"
    reads_coins: ClassVar[bool] = False

    def scores(self, signals: Signals) -> FloatArray:
        """Probabilities (R, m) from margins (R, m)."""
        return np.exp(-signals.loss)
