"""Gradient norm of an example in the last layer alone, which needs no backward pass through the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.model import last_layer
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds


@dataclass(frozen=True, kw_only=True)
class LastLayerNorm(ObservedRounds):
    """The length of the part of an example's gradient that belongs to the layer that gives the logits, from 0.

    For a linear last layer with a bias it is EL2N × √(‖a‖² + 1), a being what the layer is given. Katharopoulos and
    Fleuret bound the whole gradient norm by a constant of the network times the slope of the loss at the last layer.
    That slope in the logits is EL2N, so that `el2n` has their order of examples.

    A matrix that the layer shares with another one counts with the whole of its gradient. Only trained parameters
    count, and a last layer without any is refused.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> LastLayerNorm.measures[0].title
    'last-layer norm'

    Reference: Katharopoulos and Fleuret (2018), Not all samples are created equal.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="last_layer_norm",
            title="last-layer norm",
            means="Length of the gradient of the example's loss in the parameters of the last layer.",
            is_not="It is a part of the gradient norm, and leaves out what earlier layers learn.",
            range=(0.0, float("inf")),
            trained_on="lower",
        )
    )
    passes: ClassVar[float] = 3.0
    trains_last_layer: ClassVar[bool] = True
    texts: ClassVar[bool] = True

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        squares = context.squared_gradients()
        # by identity, since a matrix that two layers share has the name of the other one
        last = last_layer(context.network, context.examples.inputs[:1])
        own = {id(part) for part in context.network.get_submodule(last).parameters(recurse=False)}
        names = [name for name, part in context.network.named_parameters() if id(part) in own and name in squares]
        if not names:
            raise ValueError(
                f"the last layer, `{last}`, is frozen, so that its gradient is no part of training; "
                "read grad_norm or el2n instead"
            )
        return {"last_layer_norm": np.sqrt(np.sum([squares[name] for name in names], axis=0))}
