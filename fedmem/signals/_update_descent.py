"""The update of a client or of the server, and how far it descends the losses of examples, to first order."""

from __future__ import annotations

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.signal import SignalContext


def update_of(context: SignalContext, position: int) -> Params:
    """Sent − before in float64, of the entries that change; no loss descends along running statistics."""
    transition = context.transitions[position]
    statistics = frozenset(context.federation.mode.statistics)
    return {
        name: value.double() - transition.before[name].double()
        for name, value in transition.sent.items()
        if name not in statistics
    }


def descent_by(context: SignalContext, position: int, update: Params) -> FloatArray:
    """(n,) −⟨∇ℓ(before), update⟩ of each example, in nats; personal layers do not change, and add nothing."""
    from fedmem.training.derivatives import slopes_along

    before, examples = context.transitions[position].before, context.examples
    return -slopes_along(context.network, before, update, examples.inputs, examples.targets)
