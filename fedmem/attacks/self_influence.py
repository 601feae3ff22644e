"""Self-influence as an attack: how much an example's own gradient would still change its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals

_SIGNAL_OF = {"all": "grad_norm", "last": "last_layer_norm"}


@dataclass(frozen=True, kw_only=True)
class SelfInfluence:
    """Minus the self-influence −∇ℓᵀ H⁻¹ ∇ℓ of an example, with the identity in place of the Hessian H.

    Cohen and Giryes (2024) call an example a member if its self-influence is near 0. A model at a minimum has adjusted
    to what it was trained on. H⁻¹ is not computed here. With the identity the score is −‖∇ℓ‖². TracIn
    calls ‖∇ℓ‖² the self-influence at one checkpoint (Pruthi et al., 2020), up to the learning rate. The order is that
    of the gradient norm. The score is at most 0; higher means member.

    - `layers: last` takes the gradient in the parameters of the last layer alone. It reads the signal
      `last_layer_norm`, and `all` reads `grad_norm`;
    - a direction that many examples share counts as much as one that an example has for itself. The inverse Hessian
      would weigh the former less, so that the authors' attack may be stronger;
    - the authors also ask whether the prediction is right. A wrong prediction has a large gradient anyway;
    - does not read the coins; NaN where the signal is NaN.

    Fields:
        layers: Parameters of the gradient: `all`, or those of the `last` layer.

    >>> import numpy as np
    >>> norms = np.array([[0.5, 2.0]])
    >>> signals = Signals(margin=-norms, is_in=norms < 1, signals={"grad_norm": norms})
    >>> SelfInfluence().scores(signals).tolist()
    [[-0.25, -4.0]]

    Reference: Cohen and Giryes (2024), Membership inference attack using self influence functions. Pruthi, Liu, Kale
    and Sundararajan (2020), Estimating training data influence by tracing gradient descent.
    """

    title: ClassVar[str] = "self-influence"
    legend: ClassVar[str] = "attack that calls an example with a small gradient at the model a member"
    knows: ClassVar[str] = "the parameters of one model"
    reads_coins: ClassVar[bool] = False
    null_auc: ClassVar[float] = 0.5
    min_runs: ClassVar[int] = 2

    layers: Literal["all", "last"] = "all"

    @property
    def reads_signals(self) -> tuple[str, ...]:
        """The norm of the gradient."""
        return (_SIGNAL_OF[self.layers],)

    def scores(self, signals: Signals) -> FloatArray:
        """Minus squared norms (R, m)."""
        return -(signals.signals[_SIGNAL_OF[self.layers]] ** 2)
