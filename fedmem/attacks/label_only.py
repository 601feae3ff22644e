"""A label-only attack: how often a model stays right when noise is added to the example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from fedmem.attacks._reference_runs import minus_other_outs
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class LabelOnly:
    """Robustness to noise as a score (Choquette-Choo, Tramèr, Carlini and Papernot, 2021).

    The score is the signal `noise_robustness`: the share of noisy copies of the example that the model gets right, 0 to
    1; higher means member. The model gives labels alone. The share stands for the distance to the decision boundary:
    for a linear boundary at distance d it is Φ(d / σ) on average.

    - Robustness mostly reflects difficulty. Without `calibrate` an easy example looks like a member, and a hard one
      like a non-member;
    - `calibrate` subtracts the mean over the other runs without the example, as `watson` does. The attack then needs
      shadow runs and reads coins, so its null is estimated by re-dealt coins;
    - the score has one value more than there are noisy copies. A threshold cannot separate equal scores;
    - NaN where the signal is NaN.

    Fields:
        calibrate: Subtract the mean over the other runs without the example.

    >>> import numpy as np
    >>> robustness = np.array([[0.9, 0.2]])
    >>> coins = np.array([[True, False]])
    >>> signals = Signals(margin=robustness, is_in=coins, signals={"noise_robustness": robustness})
    >>> LabelOnly().scores(signals).tolist()
    [[0.9, 0.2]]

    Reference: Choquette-Choo et al. (2021), Label-only membership inference attacks.
    """

    title: ClassVar[str] = "label only"
    legend: ClassVar[str] = "attack by the share of noisy copies of an example that the model gets right"
    knows: ClassVar[str] = (
        "labels that one model predicts for noisy copies; with calibrate, also those of shadow runs without the example"
    )
    counts_groups: ClassVar[bool] = True
    reads_signals: ClassVar[tuple[str, ...]] = ("noise_robustness",)

    calibrate: bool = False

    @property
    def reads_coins(self) -> bool:
        """Whether other runs calibrate it."""
        return self.calibrate

    @property
    def null_auc(self) -> float | None:
        """The AUC without memorisation, known where no coin is read."""
        return None if self.calibrate else 0.5

    @property
    def min_runs(self) -> int:
        """References are the other out runs."""
        return 8 if self.calibrate else 2

    def scores(self, signals: Signals) -> FloatArray:
        """Shares of noisy copies that are right (R, m), or their differences from those of other runs."""
        return self.scores_under_coins(signals)(signals.is_in)

    def scores_under_coins(self, signals: Signals) -> Callable[[BoolArray], FloatArray]:
        """The scores as a function of the coins (R, m)."""
        robustness = signals.signals["noise_robustness"]
        return minus_other_outs(robustness) if self.calibrate else lambda is_in: robustness.copy()
