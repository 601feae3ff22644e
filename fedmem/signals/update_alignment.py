"""Alignment of an update with an example's gradient: what a server can see of the examples that a client trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._update_descent import descent_by, update_of


@dataclass(frozen=True, kw_only=True)
class UpdateAlignment(ObservedRounds):
    """How the update Δ of a client, or of the server, agrees with a descent on an example's loss from the model before.

    - `update_alignment`: the cosine of −∇ℓ(before) and Δ = sent − before, −1 to 1;
    - `update_descent`: their inner product −⟨∇ℓ(before), Δ⟩, in nats: by how much Δ lowers the loss to first order.

    The model before and the update are what a server sees, so that only the example itself has to be known. Personal
    layers are sent to nobody, and count neither in Δ nor in the gradient. NaN for an update of zero or a gradient of
    zero, and at round 0.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> UpdateAlignment.measures[0].range
    (-1.0, 1.0)

    Reference: Li, Li and Ribeiro (2023), Effective passive membership inference attacks in federated learning against
    overparameterized models.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="update_alignment",
                title="update alignment",
                means="Cosine of the update and of a step down the example's loss.",
                is_not="Other rows of the client with a similar gradient raise it as well.",
                range=(-1.0, 1.0),
                trained_on="higher",
            )
        ),
        *signal_measures(
            Measure(
                name="update_descent",
                title="descent by the update",
                means="By how much the update lowers the example's loss, to first order.",
                is_not="It is a linear approximation, and grows with the length of the update.",
                unit="nats",
                trained_on="higher",
            )
        ),
    )
    passes: ClassVar[float] = 5.0
    texts: ClassVar[bool] = False
    reads_update: ClassVar[bool] = True

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        transitions, examples = context.transitions, context.examples
        # clients of a run and round were sent one model
        distinct = {id(transition.before): transition.before for transition in transitions}
        squares = context.squared_gradients(list(distinct.values()))
        # like the update, the gradient counts only the layers that clients send
        lengths = np.sqrt(np.sum([squares[name] for name in sorted(context.sent_names)], axis=0))
        length_of = dict(zip(distinct, lengths, strict=True))
        cosine, descent = np.full((2, len(transitions), len(examples)), np.nan)
        for t, transition in enumerate(transitions):
            step = update_of(context, t)
            length = _length(step)
            if not transition.round or not length > 0:
                continue
            along = descent_by(context, t, step)
            descent[t] = along
            with np.errstate(invalid="ignore", divide="ignore"):
                product = length * length_of[id(transition.before)]
                cosine[t] = np.where(product > 0, np.clip(along / product, -1.0, 1.0), np.nan)
        return {"update_alignment": cosine, "update_descent": descent}


def _length(step: Params) -> float:
    return float(np.sqrt(sum(float(value.square().sum()) for value in step.values())))
