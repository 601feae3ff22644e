"""Calibration by a reference model: how much smaller a loss is than at the model that training started from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import MembershipGrant, Signals


@dataclass(frozen=True, kw_only=True)
class ReferenceModel:
    """The loss of a model against that of a reference model that has not seen the clients' data (Carlini et al., 2021).

    The reference is the initial model of the run, at round 0. It is public knowledge to every client and to the server.
    For a pre-trained model it is the base model, whose loss says how difficult a text is. For random weights it says
    next to nothing, and the score ranks as the loss does.

    - `by: difference`: the loss of the reference minus the loss, in nats: the log of the likelihood ratio, per token of
      a text. Unbounded; higher means member.
    - `by: ratio`: minus the loss divided by that of the reference, at most 0; higher means member. Where the reference
      has a loss of 0, the score is −1 for a loss of 0 as well, otherwise −∞.

    - does not read the coins; equal losses and equal references give equal scores;
    - NaN where the margin or the reference is NaN.

    Fields

    - `by`: `difference` or `ratio`.

    >>> at_start = np.array([[2.0, 4.0]])
    >>> signals = Signals(margin=np.zeros((1, 2)), is_in=np.array([[True, False]]), initial=at_start)
    >>> [ReferenceModel(by=by).scores(signals).round(2).tolist() for by in ("difference", "ratio")]
    [[[1.31, 3.31]], [[-0.35, -0.17]]]

    References: Carlini et al. (2021), Extracting training data from large language models. Mireshghallah et al. (2022),
    Quantifying privacy risks of masked language models using membership inference attacks.
    """

    title: ClassVar[str] = "reference model"
    legend: ClassVar[str] = "attack by the loss against that of the initial model"
    knows: ClassVar[str] = "the loss, and that of the initial model"
    reads: ClassVar[tuple[MembershipGrant, ...]] = ("initial",)
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    by: Literal["difference", "ratio"] = "difference"

    def scores(self, signals: Signals) -> FloatArray:
        """Scores (R, m) from losses."""
        assert signals.initial is not None
        loss, reference = signals.loss, signals.initial
        if self.by == "difference":
            return reference - loss
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = loss / reference
        ratio = np.where((loss == 0) & (reference == 0), 1.0, ratio)
        return np.asarray(-ratio)
