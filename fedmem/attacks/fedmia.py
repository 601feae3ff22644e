"""FedMIA: a client's model or update against those of the other clients of the same round, averaged over rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals

_SIGN = {"loss": -1.0, "update_alignment": 1.0}
"""Whether training on an example makes a quantity higher."""

_ADDED = 1e-8
"""Added to the variance by the authors."""

_ROUNDING = 1e-9
"""A spread below this share of the values is rounding: models that are all alike."""


@dataclass(frozen=True, kw_only=True)
class FedMia:
    """FedMIA (Zhu and others, 2025): the attack of a server that sees one federation.

    In one round, let s be the signal of the owning client on an example. The other n = K − 1 clients of the round have
    signals on the same example with mean μ and variance σ². The term of the round is F((s − μ) / (σ √(1 + 1/n))). F is
    the distribution function of Student's t with n − 1 degrees of freedom. If the client is one more draw from the
    others, a term is uniform. The score is the mean term over the rounds in which the client took part, between 0 and
    1; higher means member.

    - with `loss`, s = −loss of the client's model (FedMIA I);
    - with `update_alignment`, s is the cosine of the client's update and −∇ of the loss at the model before (FedMIA
      II). It needs this signal in `signals`;
    - `normal` is the published form: Φ((s − μ) / √(σ² + 1e-8)), σ² divided by n. With few clients its tails are too
      light, and scores pile up at 0 and 1;
    - reads no coins and no other run. Non-members are the same examples in runs without them. Published numbers take
      non-members from other data, so that the label skew of clients counts as membership;
    - clients that hold the example are not among the others. An attacker could not leave them out;
    - rounds with fewer than two others do not count. Where the others agree to rounding, a term is 0, 1/2 or 1;
    - at the owning client only. NaN where the margin is NaN, or no round counts.

    Fields:
        signal: `loss` (I) or `update_alignment` (II).
        tail: `t`, or `normal` as published.

    >>> margin = np.array([[2.0], [0.1]])
    >>> others = [np.array([[[0.3], [0.3]], [[0.5], [0.5]], [[0.1], [0.1]]])]
    >>> signals = Signals(
    ...     margin=margin, is_in=margin > 1, series={"loss": np.array([[[0.1], [0.3]]])}, others={"loss": others}
    ... )
    >>> FedMia().scores(signals).round(3).tolist()
    [[0.761], [0.5]]
    """

    title: ClassVar[str] = "FedMIA"
    legend: ClassVar[str] = (
        "attack of a server on one federation: compares a client with the other clients of its rounds. FedMIA I reads "
        "losses; II reads the alignment of updates with the example (signal=update_alignment)"
    )
    knows: ClassVar[str] = "the models of all clients in each round of one federation"
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    signal: Literal["loss", "update_alignment"] = "loss"
    tail: Literal["t", "normal"] = "t"

    @property
    def reads_series(self) -> tuple[str, ...]:
        """The signal of the owning client."""
        return (self.signal,)

    @property
    def reads_others(self) -> tuple[str, ...]:
        """The signal of the others."""
        return (self.signal,)

    def scores(self, signals: Signals) -> FloatArray:
        """Mean tail shares (R, m) from the signals of the client and of the others."""
        total, count = np.zeros((2, *signals.margin.shape))
        for share in self._shares(signals):
            is_known = ~np.isnan(share)
            total += np.where(is_known, share, 0.0)
            count += is_known
        is_scored = (count > 0) & ~np.isnan(signals.margin)
        return np.where(is_scored, total / np.maximum(count, 1), np.nan)

    def _shares(self, signals: Signals) -> Iterator[FloatArray]:
        """The term of each round (R, m), NaN where it does not count."""
        from scipy.special import ndtr, stdtr

        sign = _SIGN[self.signal]
        for own, others in zip(signals.series[self.signal], signals.others[self.signal], strict=True):
            is_known = ~np.isnan(others)
            n = is_known.sum(0)
            mean = np.where(is_known, others, 0.0).sum(0) / np.maximum(n, 1)
            squares = np.where(is_known, (others - mean) ** 2, 0.0).sum(0)
            above = sign * (own - mean)
            scale = np.nanmax(np.abs(np.concatenate([own[None], others])), axis=0, initial=0.0)
            if self.tail == "normal":
                share = ndtr(above / np.sqrt(squares / np.maximum(n, 1) + _ADDED))
            else:
                spread = np.sqrt(squares / np.maximum(n - 1, 1) * (1 + 1 / np.maximum(n, 1)))
                is_spread = spread > _ROUNDING * scale
                share = stdtr(np.maximum(n - 1, 1), above / np.where(is_spread, spread, 1.0))
                sides = np.where(np.abs(above) > _ROUNDING * scale, np.sign(above), 0.0)
                share = np.where(is_spread, share, 0.5 * (1 + sides))
            yield np.where((n > 1) & ~np.isnan(own), share, np.nan)
