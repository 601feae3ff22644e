"""One quantity averaged over rounds: loss series, average cosine, gradient norm, and gradient difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals

_SIGN = {"loss": -1.0, "update_alignment": 1.0, "update_descent": 1.0, "grad_norm": -1.0}
"""Whether training on an example makes a quantity higher."""


@dataclass(frozen=True, kw_only=True)
class AverageSignal:
    """Guesses by the mean of one quantity over the rounds, without anything to compare it with.

    The score is the mean over the observed rounds so far that have the model or update. Its sign is such that higher
    means member. It is in the unit of the quantity:

    - `loss`: −loss of the model (Loss-Series). With one round it is the loss threshold;
    - `update_alignment`: cosine of the update and −∇ of the loss at the model before (Avg-Cosine). A server has both,
      so this is the server's alignment. At level global it is the update of the aggregate, which any client sees, and
      which secure aggregation does not hide;
    - `update_descent`: inner product −⟨∇ loss, update⟩, in nats (Grad-Diff, by its leading term);
    - `grad_norm`: −‖∇ loss‖ of the model after training (Grad-Norm).

    All but `loss` need the signal of that name in `signals`. As with every score without calibration, easy examples
    look like members, and so do labels that are common at a client. A comparison with `fedmia` shows what the other
    clients add as a reference.

    - reads no coins and no other run;
    - has no scores at the other clients. NaN where the margin is NaN, or no round has a value.

    Fields:
        signal: the quantity.

    >>> series = {"loss": np.array([[[0.1, 2.0]], [[0.3, np.nan]]])}
    >>> signals = Signals(margin=np.array([[1.0, -1.0]]), is_in=np.array([[True, False]]), series=series)
    >>> AverageSignal().scores(signals).tolist()
    [[-0.2, -2.0]]

    References: Li, Li and Ribeiro (2023), Effective passive membership inference attacks in federated learning against
    overparameterized models. Zhu and others (2025), FedMIA, for these baselines.
    """

    title: ClassVar[str] = "mean over rounds"
    legend: ClassVar[str] = (
        "attack that averages one quantity of a client over rounds: its loss, or by signal= the alignment of its "
        "updates, their descent, or gradient norms"
    )
    knows: ClassVar[str] = "the models of one client, or of the server, in each round of one federation"
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    signal: Literal["loss", "update_alignment", "update_descent", "grad_norm"] = "loss"

    @property
    def reads_series(self) -> tuple[str, ...]:
        """The quantity."""
        return (self.signal,)

    def scores(self, signals: Signals) -> FloatArray:
        """Signed means over rounds (R, m)."""
        values = signals.series[self.signal]
        is_known = ~np.isnan(values)
        count = is_known.sum(0)
        total = np.where(is_known, values, 0.0).sum(0)
        is_scored = (count > 0) & ~np.isnan(signals.margin)
        return np.where(is_scored, _SIGN[self.signal] * total / np.maximum(count, 1), np.nan)
