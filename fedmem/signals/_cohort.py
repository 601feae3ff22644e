"""The messages of a round, and the aggregates that fewer clients would have made of them as their weighted mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.signal import SignalContext
from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor

UTILITIES = ("accuracy", "loss")
"""The utilities of a model: correctness, and minus the cross-entropy."""

AT_ONCE = 64
"""Coalitions whose models are held at the same time."""

TOLERANCE = 1e-5
"""Largest difference to the real aggregate by rounding, relative to its largest entry."""


def senders_of(context: SignalContext, position: int) -> tuple[Transition, ...]:
    """The local transitions that an aggregate was made of, in order of client; empty at round 0.

    Errors: `ComponentError` where the aggregate is not their weighted mean, as under robust rules and server noise.
    """
    transition = context.transitions[position]
    if transition.client >= 0:
        raise ComponentError(
            "signals",
            f"clients keep layers of their own, so that client {transition.client} reads an aggregate of its own. Use "
            "client: {kind: sgd} and norm: {kind: averaged}, or leave the signal out",
        )
    clients = set(transition.clients)
    senders = sorted(
        (local for local in context.counterparts(position) if local.client in clients), key=lambda local: local.client
    )
    if senders:
        _require_mean(transition, mean_model(senders, shares_of(senders, context.weighting)))
    return tuple(senders)


def shares_of(senders: Sequence[Transition], weighting: str) -> FloatArray:
    """(K,) the weights of clients in their mean, with the sum 1; equal ones where nobody has rows."""
    sizes = np.array([sender.num_examples if weighting == "size" else 1 for sender in senders], dtype=np.float64)
    return np.asarray(sizes / sizes.sum() if sizes.sum() > 0 else np.full(len(sizes), 1 / max(1, len(sizes))))


def mean_model(senders: Sequence[Transition], shares: FloatArray) -> Params:
    """The model with weights Σ_k share_k × sent_k, in float64 and then in the type of each entry.

    Whole numbers and running statistics are lower medians over the clients, as a server takes them.
    """
    import torch

    from fedmem.strategies._rule import is_weight, lower_median

    factors = torch.from_numpy(shares)
    model: dict[str, Tensor] = {}
    for name, value in senders[0].sent.items():
        sent = torch.stack([sender.sent[name].detach().cpu() for sender in senders])
        if is_weight(name, value):
            model[name] = torch.tensordot(factors, sent.double(), dims=1).to(value.dtype)
        else:
            model[name] = lower_median(sent[None])[0]
    return model


def coalition_model(before: Params, senders: Sequence[Transition], is_member: BoolArray, weighting: str) -> Params:
    """The aggregate of some of the clients (K,) with their weights renormalised; without any, the model before."""
    members = [sender for sender, counts in zip(senders, is_member.tolist(), strict=True) if counts]
    return mean_model(members, shares_of(members, weighting)) if members else before


def _require_mean(transition: Transition, mean: Params) -> None:
    """The real aggregate is this mean, but for rounding."""
    import torch

    for name, value in transition.sent.items():
        real, given = value.detach().cpu().double(), mean[name].double()
        is_finite = real.isfinite() & given.isfinite()  # others have diverged in one way or another
        largest = float(real[is_finite].abs().max()) if is_finite.any() else 0.0
        if not torch.allclose(given[is_finite], real[is_finite], rtol=0.0, atol=TOLERANCE * largest):
            raise ComponentError(
                "strategy",
                f"run {transition.run}, round {transition.round}: the aggregate is not the weighted mean of what the "
                f"clients sent ({name!r} differs). So nothing says what it would be without some of them. Use fedavg, "
                "or leave the signal out",
            )


class Coalitions:
    """The utilities of coalitions of a cohort on the examples of a context; each coalition is evaluated once.

    Args:
        context: The examples, and services.
        before: The model with which the round began.
        senders: The local transitions of the K clients; bit k of a coalition is the k-th of them.
    """

    def __init__(self, context: SignalContext, before: Params, senders: Sequence[Transition]) -> None:
        self._context, self._before, self._senders = context, before, senders
        self._utilities: dict[int, FloatArray] = {}

    def worth_of(self, utility: int) -> Callable[[Sequence[int]], FloatArray]:
        """The worth (c, n) of coalitions by one of `UTILITIES`, on each example."""

        def worth(coalitions: Sequence[int]) -> FloatArray:
            self._evaluate([number for number in coalitions if number not in self._utilities])
            return np.stack([self._utilities[number][utility] for number in coalitions])

        return worth

    def _evaluate(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), AT_ONCE):
            part = numbers[start : start + AT_ONCE]
            models = [self._model(number) for number in part]
            values = utilities_of(self._context, models)
            self._utilities |= {number: values[:, place] for place, number in enumerate(part)}

    def _model(self, number: int) -> Params:
        is_member = (number >> np.arange(len(self._senders)) & 1).astype(bool)
        return coalition_model(self._before, self._senders, is_member, self._context.weighting)


def utilities_of(context: SignalContext, models: Sequence[Params]) -> FloatArray:
    """(2, T, n) each of `UTILITIES` of T models on the examples of a context; NaN where a model has diverged.

    An infinite loss is NaN as well.
    """
    margin, correct = context.answers_of(models, context.examples)
    with np.errstate(invalid="ignore"):
        gain = -np.logaddexp(0.0, -margin)
    return np.stack([correct, np.where(np.isfinite(gain), gain, np.nan)])
