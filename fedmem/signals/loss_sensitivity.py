"""Sensitivity of the loss to the input."""

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
class LossSensitivity(ObservedRounds):
    """‖∂ℓ/∂x‖₁, the sum of the absolute slopes of the loss in all values of the input, from 0.

    Published values are means over training; those of several observed rounds can be averaged. For a table, the
    slopes in the entries of a one-hot count like all others, although categories do not move by a little.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> LossSensitivity.texts
    False

    Reference: Arpit et al. (2017), A closer look at memorization in deep networks.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="loss_sensitivity",
            title="loss sensitivity",
            means="Sum of the absolute slopes of the loss in the values of the input.",
            is_not="It depends on the scale of the inputs, so that data sets are not comparable by it.",
            range=(0.0, float("inf")),
            trained_on="lower",
        )
    )
    passes: ClassVar[float] = 3.0
    texts: ClassVar[bool] = False

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        from fedmem.training.derivatives import input_slopes

        examples = context.examples
        slopes = [
            input_slopes(context.function(t), examples.inputs, examples.targets).flatten(1).abs().sum(dim=1).numpy()
            for t in range(len(context.transitions))
        ]
        return {"loss_sensitivity": np.stack(slopes)}
