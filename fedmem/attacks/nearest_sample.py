"""Membership from samples alone: an example near a sample of a generative model is taken for a member."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from fedmem.attacks._reference_runs import minus_other_outs
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals


@dataclass(frozen=True, kw_only=True)
class NearestSample:
    """GAN-Leaks: minus the distance of an example from the nearest of G samples of the model; higher means member.

    The attacker sees samples and no model. Without calibration it needs only what a service publishes. It reads the
    signal `sample_distance`.

    - `calibrated` adds the mean distance over the other runs without the example. So an example near everything no
      longer looks like a member. The attacker then needs shadow federations;
    - without calibration the score reads no coins;
    - NaN where the signal is NaN, and calibrated without a reference.

    Fields:
        calibrated: Whether the mean score over shadow federations is subtracted.

    >>> import numpy as np
    >>> distance = np.array([[0.1], [0.5], [0.2], [0.4]])
    >>> signals = Signals(margin=-distance, is_in=distance < 0.3, signals={"sample_distance": distance})
    >>> NearestSample().scores(signals).round(2).ravel().tolist()
    [0.35, -0.1, 0.25, 0.1]

    Reference: Chen, Yu, Zhang and Fritz (2020), GAN-Leaks: a taxonomy of membership inference attacks against
    generative models.
    """

    title: ClassVar[str] = "nearest sample"
    legend: ClassVar[str] = "attack that calls an example near a sample of the model a member"
    knows: ClassVar[str] = "samples of the model; calibrated, also those of shadow federations with the same schedule"
    reads_signals: ClassVar[tuple[str, ...]] = ("sample_distance",)
    counts_groups: ClassVar[bool] = True
    densities: ClassVar[bool] = True

    calibrated: bool = True

    @property
    def reads_coins(self) -> bool:
        """Calibration reads which other runs trained on the example."""
        return self.calibrated

    @property
    def null_auc(self) -> float | None:
        """One half without calibration; else it is estimated by re-dealt coins."""
        return None if self.calibrated else 0.5

    @property
    def min_runs(self) -> int:
        """Calibration needs references."""
        return 8 if self.calibrated else 2

    def scores(self, signals: Signals) -> FloatArray:
        """Minus distances (R, m), calibrated or not."""
        return self.scores_under_coins(signals)(signals.is_in)

    def scores_under_coins(self, signals: Signals) -> Callable[[BoolArray], FloatArray]:
        """The scores as a function of the coins (R, m)."""
        scores = -signals.signals["sample_distance"]
        return minus_other_outs(scores) if self.calibrated else lambda is_in: scores
