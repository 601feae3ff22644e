"""Fed-Influence: what the aggregate would answer had a client never taken part, by a recursion over rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.client import ScheduledClient
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.signal import SignalContext
from fedmem.errors import ComponentError
from fedmem.estimation.client_recursion import Response, RoundOfClients, shift_without
from fedmem.signals._cohort import UTILITIES, senders_of, utilities_of

DENSE = 6000
"""Trained parameters up to which the matrix of a client is formed: 288 MB."""


@dataclass(frozen=True, kw_only=True)
class FedInfluence:
    """Leave-one-out value of each client without retraining, U(θ) − U(θ + ε_c) on test examples, at the aggregate.

    ε_c is the move of the aggregate had client c never taken part. It follows a recursion over rounds, see
    `fedmem.estimation.client_recursion`:

        ε_r = Σ_{k≠c} w'_k Π_s (I − η_s H_k) ε_{r−1} + (Σ_{k≠c} w'_k θ_k − θ_r).

    U is the correctness (`accuracy`) or minus the cross-entropy in nats (`loss`). A useful client has a positive value.
    H_k is the Gauss–Newton matrix of the objective of client k at the aggregate that it received, with weight decay. It
    is over all rows of the client, for each of its steps of rate η_s. Momentum, clipping and a proximal term are not in
    the recursion. It is of first order in ε: where a client changes much, the value may be far off.

    It is stored as `fed_influence.MATRIX.UTILITY.CLIENT` on test examples, and has no rows in tables; `client_values`
    reads it. It needs every round: write `observe: {every: 1}`. NaN where a model has diverged. The value of a client
    that never took part is 0.

    Fields

    - `matrix`: `diagonal` takes the diagonal of H_k, as published. `full` takes H_k, for 6 000 trained parameters at
      most.
    - `rows`: on how many test examples; 0 means all.
    - `every`: left out, or 1, since the recursion needs every round.
    - `levels`: `global`; the aggregate alone has clients.

    Errors: `ComponentError` where a round was not observed, or the aggregate is not a weighted mean.

    >>> FedInfluence().max_parameters, FedInfluence(matrix="full").max_parameters
    (0, 6000)

    Reference: Xue, Niu, Zheng, Tang, Lyu, Wu and Chen (2021), Toward understanding the influence of individual clients
    in federated learning.
    """

    texts: ClassVar[bool] = True
    set: ClassVar[str] = "test"
    reads_update: ClassVar[bool] = True
    reads_training: ClassVar[bool] = True
    needs_mean: ClassVar[bool] = True
    needs_every_round: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("fed_influence",)

    matrix: Literal["diagonal", "full"] = "diagonal"
    rows: Annotated[int, Ge(0)] = 0
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Literal["global"], ...] = ("global",)

    def __post_init__(self) -> None:
        if self.every not in (None, 1):
            raise ComponentError("every", f"{self.every} skips rounds, but {_EVERY}")

    @property
    def set_rows(self) -> int:
        """The rows that are asked for."""
        return self.rows

    @property
    def max_parameters(self) -> int:
        """Those whose matrix is formed."""
        return DENSE if self.matrix == "full" else 0

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """A pass for each client's model, and the Jacobian of each row of the cohort."""
        size = sum(value.numel() for value in federation.initial.values())
        product = size / 10 if self.matrix == "full" else 0.0
        rows = float(federation.base_sizes.sum())
        return federation.num_clients + 1.0, rows * federation.num_classes * (2.0 + product)

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """`MATRIX.UTILITY.CLIENT`."""
        clients = range(federation.num_clients)
        return {"fed_influence": [f"{self.matrix}.{utility}.{k}" for utility in UTILITIES for k in clients]}

    def start(self, context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """No client has moved the initial model."""
        transition = context.transitions[position]
        if transition.round > 1:
            raise ComponentError("observe", f"fed_influence first saw round {transition.round}; {_EVERY}")
        size = len(_vector(context, transition.kept))
        clients, rows = context.federation.num_clients, len(context.examples)
        return {
            "shift": np.zeros((clients, size)),
            "round": np.zeros(1),
            "values": np.zeros((len(UTILITIES), clients, rows)),
        }

    def update(self, state: dict[str, NDArray[Any]], context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """The moves and the values after one more round."""
        transition, senders = context.transitions[position], senders_of(context, position)
        if transition.round > state["round"][0] + 1:
            raise ComponentError("observe", f"fed_influence did not see round {int(state['round'][0]) + 1}; {_EVERY}")
        state = {**state, "round": np.full(1, float(transition.round))}
        shift = state["shift"]
        if senders:
            sizes = [sender.num_examples if context.weighting == "size" else 1 for sender in senders]
            rnd = RoundOfClients(
                clients=np.array([sender.client for sender in senders]),
                sizes=np.array(sizes, dtype=np.float64),
                before=_vector(context, transition.before),
                sent=np.stack([_vector(context, sender.sent) for sender in senders]),
                after=_vector(context, transition.kept),
                responses=[self._response(context, sender) for sender in senders],
            )
            shift = shift_without(shift, rnd)
        moved = np.flatnonzero(np.any(shift != 0, axis=1))  # NaN is not 0
        values = np.zeros_like(state["values"])
        if len(moved):
            models = [
                transition.kept,
                *(_shift_model(context, transition.kept, shift[client]) for client in moved.tolist()),
            ]
            utilities = utilities_of(context, models)
            values[:, moved] = utilities[:, :1] - utilities[:, 1:]
        return {**state, "shift": shift, "values": values}

    def values_of(self, state: Mapping[str, NDArray[Any]], context: SignalContext) -> Mapping[str, FloatArray]:
        """(n, V) those of the last round."""
        return {"fed_influence": state["values"].reshape(-1, len(context.examples)).T}

    def _response(self, context: SignalContext, sender: Transition) -> Response:
        """Π_s (I − η_s H) at the model that the client received."""
        from fedmem.training.derivatives import double
        from fedmem.training.gauss_newton import FlatModel, GaussNewton, place_weights

        assert isinstance(context.client, ScheduledClient)
        rows = context.federation.rows(sender.run, sender.client, sender.round)
        model = FlatModel(context.network, sender.before)
        if not bool(model.vector.isfinite().all()):
            return lambda shift: np.full_like(shift, np.nan)
        if not len(rows):
            return lambda shift: shift
        schedule = context.client.schedule(sender.round, context.client.num_steps(len(rows)))
        distinct, copies = np.unique(rows, return_counts=True)
        store = context.federation.store.take(distinct)
        weights = place_weights(copies / len(rows), store.targets)
        matrix = GaussNewton(model, double(store.inputs), weights, decay=schedule.weight_decay)
        if self.matrix == "full":
            return partial(_steps, matrix.dense().numpy(), schedule.learning_rates)
        diagonal = matrix.diagonal().numpy()
        factor = np.prod(1 - schedule.learning_rates[:, None] * diagonal, axis=0)
        return lambda shift: shift * factor


_EVERY = "the recursion needs every round. Write observe: {every: 1} and no every here, or leave the signal out"


def _steps(matrix: FloatArray, rates: FloatArray, shift: FloatArray) -> FloatArray:
    """Π_s (I − η_s H) times each of the shifts (N, P)."""
    for rate in rates:
        shift = shift - rate * (shift @ matrix)
    return shift


def _vector(context: SignalContext, params: Params) -> FloatArray:
    """(P,) the trained parameters of a model, in float64."""
    from fedmem.training.gauss_newton import FlatModel

    vector: FloatArray = FlatModel(context.network, params).vector.numpy()
    return vector


def _shift_model(context: SignalContext, params: Params, shift: FloatArray) -> Params:
    """The model with its trained parameters moved."""
    import torch

    from fedmem.contracts.model import trained_parameters

    moved, start = dict(params), 0
    for name, value in trained_parameters(context.network).items():
        part = torch.from_numpy(shift[start : start + value.numel()]).view(value.shape)
        moved[name] = (params[name].detach().cpu().double() + part).to(params[name].dtype)
        start += value.numel()
    return moved
