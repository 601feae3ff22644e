"""Values of clients by round: how much the model that each client sent adds to the aggregate on the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.federation import Federation
from fedmem.contracts.signal import SignalContext
from fedmem.errors import ComponentError
from fedmem.estimation.coalitions import complete, guided_orders, leave_one_out, shapley, truncated_shapley
from fedmem.signals._cohort import UTILITIES, Coalitions, senders_of

Method = Literal["exact", "gtg", "leave_one_out", "completed"]

EXACT = 8
"""The largest cohort all of whose coalitions are evaluated."""

COMPLETED = 10
"""The most clients of a run whose coalitions are completed: 1 023 columns."""

PARTICIPATIONS = "participations"
"""The variant with the number of rounds that a client took part in."""


@dataclass(frozen=True, kw_only=True)
class ClientValue:
    """Federated values of clients, computed in a single run from what the server receives, summed over rounds.

    In a round with cohort I, v(S) = U(Σ_{k∈S} n_k/n_S w_k) is the worth of a coalition S of I. Here w_k is the model
    that client k sent, after defences, n_k its rows, and n_S those of S. With uniform weighting all n_k are equal. v(∅)
    = U(θ_{r−1}), of the aggregate with which the round began. U is read on test examples: the correctness (`accuracy`),
    and minus the cross-entropy in nats (`loss`). So a positive value means a useful client. Values are linear in U, and
    each test example has its own. The value of a client is the sum over the rounds at which the signal is read. A
    client that is not in a cohort has 0 in that round.

    - `exact`: Shapley values of all coalitions of the cohort (Wang et al., 2020). It has 2^K coalitions, and refuses a
      cohort of more than 8.
    - `gtg`: Shapley values from random orders, truncated (Liu et al., 2022). Every client is first in
      `orders_per_client` orders. A round counts as 0 where |v(I) − v(∅)| < `between`. An order ends where
      |v(I) − v(S)| < `within`. Means over test examples are compared, for accuracy and loss apart.
    - `leave_one_out`: v(I) − v(I without k).
    - `completed`: Shapley values among all clients of the run, so that absence is no penalty (Fan et al., 2022). The
      matrix of v_r(S) − v_r(∅), rounds × coalitions, is completed with `rank`. Observed entries stay. It needs all
      coalitions of at most 10 clients in some round: at least one round with all clients. Otherwise it is NaN. It is
      about the mean over test examples, the same for each of them.

    `exact` sums to v(I) − v(∅) in each round. With weights that are renormalised, a client that sends θ_{r−1} has no
    value of 0: it draws the others towards it.

    It is stored on test examples as `client_value.METHOD.UTILITY.CLIENT`. The number of rounds with a client is
    `client_value.participations.CLIENT`. Tables have no rows of it; `client_values` reads it. Observed rounds
    alone are counted, so write `observe: {every: 1}` for the sum over all rounds. A coalition whose model has diverged
    makes the values NaN. The values of clients that a run leaves out mean nothing; `client_values` does not read them.

    Fields

    - `methods`: which values to compute, of `exact`, `gtg`, `leave_one_out` and `completed`.
    - `orders_per_client`: orders of `gtg` in each round that a client leads.
    - `between`: smallest change of U by a round that `gtg` counts; 0 counts all.
    - `within`: smallest change of U by the rest of an order that `gtg` goes on for; 0 goes on to the end.
    - `rank`: rank of the matrix of `completed`.
    - `rows`: on how many test examples; 0 means all.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `global`; the aggregate alone has clients.

    Errors: `ComponentError` where the aggregate is not the weighted mean of what the cohort sent.

    >>> ClientValue(methods=("exact", "gtg")).set
    'test'

    References: Wang, Rausch, Zhang, Jia and Song (2020), A principled approach to data valuation for federated
    learning. Liu, Chen, Yu, Liu and Cui (2022), GTG-Shapley. Fan, Fang, Zhou, Pei, Friedlander, Liu and Zhang (2022),
    Improving fairness for data valuation in horizontal federated learning.
    """

    texts: ClassVar[bool] = True
    set: ClassVar[str] = "test"
    reads_update: ClassVar[bool] = True
    needs_mean: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("client_value",)

    methods: tuple[Method, ...] = ("exact", "leave_one_out")
    orders_per_client: Annotated[int, Gt(0)] = 2
    between: Annotated[float, Ge(0)] = 0.0
    within: Annotated[float, Ge(0)] = 0.0
    rank: Annotated[int, Gt(0), Le(5)] = 2
    rows: Annotated[int, Ge(0)] = 0
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Literal["global"], ...] = ("global",)

    def __post_init__(self) -> None:
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ComponentError(
                "methods", f"{list(self.methods)} should name one method or more, each once, such as [exact]"
            )

    @property
    def set_rows(self) -> int:
        """The rows that are asked for."""
        return self.rows

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """One for each coalition, of as many clients as are enumerated at most."""
        clients = federation.num_clients
        all_coalitions = 2.0 ** min(clients, EXACT)
        if {"exact", "completed"} & set(self.methods):
            return all_coalitions, 0.0
        ordered = float(clients * clients * self.orders_per_client) if "gtg" in self.methods else 0.0
        return min(ordered, 2.0**clients) + clients + 2.0, 0.0

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """`METHOD.UTILITY.CLIENT` and `participations.CLIENT`."""
        clients = range(federation.num_clients)
        values = [f"{method}.{utility}.{k}" for method in self.methods for utility in UTILITIES for k in clients]
        return {"client_value": [*values, *(f"{PARTICIPATIONS}.{k}" for k in clients)]}

    def start(self, context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """No round yet."""
        clients, rows = context.federation.num_clients, len(context.examples)
        present = _clients_of_run(context.federation, context.transitions[position].run)
        if "completed" in self.methods and len(present) > COMPLETED:
            raise ComponentError(
                "signals",
                f"client_value: completed needs 2^N coalitions of the N = {len(present)} clients of a run, and takes "
                f"{COMPLETED} clients at most. Use fewer clients, or methods: [gtg]",
            )
        summed: dict[str, NDArray[Any]] = {
            method: np.zeros((len(UTILITIES), clients, rows)) for method in self.methods if method != "completed"
        }
        # of each observed coalition the round, the members as bits, and the utilities minus those of no client
        seen = {"round": np.zeros(0), "coalition": np.zeros(0, dtype=np.int64), "gain": np.zeros((0, len(UTILITIES)))}
        return {**summed, **seen, "clients": present, PARTICIPATIONS: np.zeros(clients)}

    def update(self, state: dict[str, NDArray[Any]], context: SignalContext, position: int) -> dict[str, NDArray[Any]]:
        """The sums with one more round."""
        transition, senders = context.transitions[position], senders_of(context, position)
        if not senders:
            return state
        clients, players = [sender.client for sender in senders], len(senders)
        coalitions = Coalitions(context, transition.before, senders)
        is_enumerated = bool({"exact", "completed"} & set(self.methods))
        if is_enumerated and players > EXACT:
            raise ComponentError(
                "signals",
                f"client_value: round {transition.round} has a cohort of {players}, and exact and completed evaluate "
                f"all coalitions of {EXACT} clients at most. Use methods: [gtg, leave_one_out], or a smaller cohort",
            )
        state = {
            **state,
            PARTICIPATIONS: state[PARTICIPATIONS] + np.isin(np.arange(len(state[PARTICIPATIONS])), clients),
        }
        rng = context.stream("client value", run=transition.run, round_number=transition.round)
        orders = guided_orders(players, self.orders_per_client, rng) if "gtg" in self.methods else np.zeros((0, 0), int)
        for method in self.methods:
            if method == "completed":
                state |= _with_coalitions(state, coalitions, transition.round, clients)
                continue
            added = np.zeros_like(state[method])
            for place in range(len(UTILITIES)):
                worth = coalitions.worth_of(place)
                if method == "exact":
                    values = shapley(worth(range(1 << players)))
                elif method == "gtg":
                    values = truncated_shapley(worth, orders, between=self.between, within=self.within)
                else:
                    values = leave_one_out(worth, players)
                added[place, clients] = values
            state[method] = state[method] + added
        return state

    def values_of(self, state: Mapping[str, NDArray[Any]], context: SignalContext) -> Mapping[str, FloatArray]:
        """The sums so far, (n, V)."""
        rows, clients = len(context.examples), context.federation.num_clients
        parts = []
        for method in self.methods:
            if method == "completed":
                values = np.repeat(_completed_values(state, self.rank, clients)[..., None], rows, axis=2)
            else:
                values = state[method]
            parts.append(values.reshape(-1, rows))
        parts.append(np.repeat(state[PARTICIPATIONS][:, None], rows, axis=1))
        return {"client_value": np.concatenate(parts).T}


def _clients_of_run(federation: Federation, run: int) -> NDArray[Any]:
    """The clients that exist in a run."""
    is_there = np.ones(federation.num_clients, dtype=bool)
    if federation.audit.client_in is not None:
        is_there &= federation.audit.client_in[run]
    is_there[list(federation.absent_clients)] = False
    return np.flatnonzero(is_there)


def _with_coalitions(
    state: Mapping[str, NDArray[Any]], coalitions: Coalitions, round_number: int, clients: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """The observed coalitions with those of one more round, as bits of the places among the clients of the run."""
    players = len(clients)
    numbers = np.arange(1, 1 << players)
    places = np.searchsorted(state["clients"], clients)
    members = ((numbers[:, None] >> np.arange(players)) & 1) @ (1 << places)
    worth = np.stack(
        [coalitions.worth_of(place)(range(1 << players)).mean(axis=1) for place in range(len(UTILITIES))], axis=1
    )
    return {
        "round": np.concatenate([state["round"], np.full(len(numbers), round_number)]),
        "coalition": np.concatenate([state["coalition"], members]),
        "gain": np.concatenate([state["gain"], worth[1:] - worth[0]]),
    }


def _completed_values(state: Mapping[str, NDArray[Any]], rank: int, clients: int) -> FloatArray:
    """(utilities, clients) the sums over rounds of Shapley values among all clients of the run; NaN where unknown."""
    present, values = state["clients"], np.full((len(UTILITIES), clients), np.nan)
    rounds, row = np.unique(state["round"], return_inverse=True)
    for place in range(len(UTILITIES)):
        matrix = np.full((len(rounds), 1 << len(present)), np.nan)
        matrix[row.reshape(-1), state["coalition"]] = state["gain"][:, place]
        matrix[:, 0] = 0.0
        # a coalition that has diverged is unknown, and not one to be completed
        is_known = np.isfinite(state["gain"][:, place]).all()
        gains = complete(matrix, rank).sum(axis=0) if len(rounds) and is_known else matrix[:0].sum(axis=0) * np.nan
        values[place, present] = shapley(gains)
    return values
