"""Gradient norm of an example, and its parts: GraNd, and that of the last layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds


@dataclass(frozen=True, kw_only=True)
class GradNorm(ObservedRounds):
    """‖∇ℓ(θ; x, y)‖₂ over all parameters θ, from 0: the gradient of this example alone, without weight decay.

    Its mean over models at an early round is GraNd; here the runs of a bank are these models. A server cannot compute
    it without the row. A client can, for its own rows, on any model that it is sent.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> GradNorm.measures[1].name
    'grad_norm_gain'

    Reference: Paul, Ganguli and Dziugaite (2021), Deep learning on a data diet.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="grad_norm",
            title="gradient norm",
            means="Length of the gradient of the example's loss in the parameters.",
            is_not="It is not the share of the example in an update, which also depends on the batch and the rate.",
            range=(0.0, float("inf")),
            trained_on="lower",
        )
    )
    passes: ClassVar[float] = 3.0
    texts: ClassVar[bool] = True
    densities: ClassVar[bool] = True

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        return {"grad_norm": np.sqrt(np.sum(list(context.squared_gradients().values()), axis=0))}
