"""TracIn from updates: by how much the updates of a client have lowered the loss on an example, as a server sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, SignalLevel, signal_measures
from fedmem.signals._update_descent import descent_by, update_of


@dataclass(frozen=True, kw_only=True)
class UpdateTracIn:
    """TracIn of clients from their updates alone, summed over rounds, in nats.

    - Local, of client k on each example i: Σ_r p_k^r ⟨Δ_k^r, −∇ℓ_i(θ_{r−1})⟩ over the rounds in which k took part.
      Here Δ_k^r is what the client sent minus θ_{r−1}, and p_k^r its weight in the mean of the cohort.
    - Global, of all clients together: Σ_r ⟨Δ^r, −∇ℓ_i(θ_{r−1})⟩, with Δ^r the update of the aggregate. Where the server
      takes the weighted mean, it is the sum of the local values over clients.

    To first order it is the fall of the loss on i by these updates. It is the influence of the *presence* of the
    client, so that positive values lower the loss. An example that a client trains on is among those that its updates
    descend most. Other rows with similar gradients raise the value as well. It is `update_descent` of
    `update_alignment`, weighted and summed.

    A server needs the models that it sends, the update and the weight of each client, and the example itself. It needs
    no row of a client and no rate. Under secure aggregation it sees the global value alone. The gradient of a public
    test example instead of an audit example tells the worth of a client in the same way.

    Only observed rounds at which the signal is read are in the sum. Write `observe: {every: 1}` for all rounds.
    Defences are in the update. Personal layers are sent to nobody, and count neither in Δ nor in the gradient. The
    value is NaN once a model has diverged.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> UpdateTracIn.measures[0].unit
    'nats'

    Reference: Pruthi, Liu, Kale and Sundararajan (2020), Estimating training data influence by tracing gradient
    descent, for TracIn of single rows.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="update_tracin",
            title="TracIn from updates",
            means="First-order fall of the loss on an example by the updates of a client, or of the server.",
            is_not="It is the influence of a whole client. Other rows with a similar gradient raise it as well.",
            unit="nats",
            digits=4,
            trained_on="higher",
        )
    )
    passes: ClassVar[float] = 5.0
    texts: ClassVar[bool] = False
    reads_update: ClassVar[bool] = True

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[SignalLevel, ...] = ("local", "global")

    def start(self, context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """No round yet."""
        return {"sum": np.zeros(len(context.examples))}

    def update(self, state: dict[str, NDArray[Any]], context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """The sum with one more round."""
        if context.transitions[position].round == 0:
            return state
        fall = descent_by(context, position, update_of(context, position))
        return {"sum": state["sum"] + _weight(context, position) * fall}

    def values_of(self, state: Mapping[str, NDArray[Any]], context: SignalContext) -> Mapping[str, FloatArray]:
        """The sum so far."""
        return {"update_tracin": state["sum"]}


def _weight(context: SignalContext, position: int) -> float:
    """p_k of a client in its cohort, NaN where the cohort is not known; 1 for the aggregate."""
    transition = context.transitions[position]
    if transition.level == "global":
        return 1.0
    cohort = next(iter(context.counterparts(position)), None)
    if cohort is None or not cohort.num_examples:
        return math.nan
    return transition.num_examples / cohort.num_examples if context.weighting == "size" else 1 / len(cohort.clients)
