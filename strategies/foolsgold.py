"""Averaging in which clients whose histories resemble each other lose weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt

from ._client_state import rows_of, table, with_rows
from ._geometry import broadcast_factors, drop_non_finite, move_model, norms, products, updates
from ._rule import Arrays, Round, ServerRule

NOTHING = 1e-9
"""The own part of a history below which the history equals another one up to rounding."""


@dataclass(frozen=True, kw_only=True)
class FoolsGold(ServerRule):
    """Against one attacker with many clients: clients with similar updates count less (Fung et al., 2020).

    Let `h_k` be the sum of the updates of client k so far, and `s_kj = max(0, cos(h_k, h_j))` and `v_k = max_j s_kj`
    within the cohort. Where `v_j > v_k`, `s_kj` is multiplied by `v_k / v_j`. This pardons honest clients for their
    similarity to clients that are more similar to each other. Then `a_k = 1 - max_j s_kj`, divided by the largest. Then
    `a_k = kappa (log(a_k / (1 - a_k)) + 0.5)`, cut to [0, 1], and `w = w + sum_k a_k u_k / sum_k a_k`.

    Guarantees:

    - a single client is taken as it is. Two or more clients with the same history, and no other, have no weight. The
      model is kept whenever no client has weight;
    - ignores the numbers of examples. Clients that never moved resemble no other;
    - a client whose model is not finite counts as absent, and its history stays as it was;
    - not robust to a single wild client, which resembles no other and has full weight.

    Atypical clients win: they keep full weight, while similar, ordinary ones share theirs. Where all clients hold
    similar data (`partition: iid`) ordinary clients look like one attacker, and which clients count is nearly random.

    Keeps the history of every client: N models for each run. In the paper all clients participate in all rounds, and
    the weighted updates are added up. Here the updates of a round are compared and averaged. The paper's weights of
    single features are left out.

    Fields:
        kappa: Steepness with which a weight falls once a history resembles another.

    >>> sent = {"w": torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])}
    >>> present, clients = torch.ones((1, 3), dtype=torch.bool), torch.arange(3)[None]
    >>> start = {"w": torch.zeros(1, 2)}
    >>> round = Round(number=1, before=start, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> gold = FoolsGold()
    >>> gold.rule(gold.state(start, 3), round)[0]["w"].tolist()
    [[0.0, 1.0]]

    Reference: Fung, Yoon and Beschastnikh (2020), the limitations of federated learning in sybil settings.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    kappa: Annotated[float, Gt(0)] = 1.0

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """Histories of zero, (R, N, ...)."""
        return table(before, num_clients)

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Add to the histories, compare them, weigh by what they have of their own."""
        rnd = drop_non_finite(rnd)
        vectors = updates(rnd)
        history = {n: rows_of(state[n], rnd.clients).double() + v for n, v in vectors.items()}
        new_rows = {n: v.to(state[n].dtype) for n, v in history.items()}
        later = {n: with_rows(v, rnd.clients, rnd.present, new_rows[n]) for n, v in state.items()}
        weights = torch.where(rnd.present, self._weights(_similarities(history), rnd.present), 0.0)
        total = weights.cumsum(dim=1)[:, -1:]
        return move_model(rnd, vectors, weights / torch.where(total > 0, total, 1.0)), later

    def _weights(self, similarity: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(R, K, K) -> (R, K)."""
        max_similarity = similarity.amax(dim=2)
        pardon = torch.where(
            max_similarity[:, None] > max_similarity[:, :, None],
            max_similarity[:, :, None] / max_similarity[:, None],
            1.0,
        )
        weight = 1 - (similarity * pardon).amax(dim=2)
        weight = torch.where(weight > NOTHING, weight, 0.0)
        max_weight = torch.where(present, weight, 0.0).amax(dim=1, keepdim=True)
        weight = torch.where(max_weight > 0, weight / torch.where(max_weight > 0, max_weight, 1.0), 0.0)
        return (self.kappa * (torch.logit(weight) + 0.5)).clamp(min=0, max=1)


def _similarities(history: Arrays) -> torch.Tensor:
    """(R, K, K) cosines where they are positive, zero to oneself and for histories of zero."""
    length = norms(history)
    places = range(length.shape[1])
    units = {n: v / broadcast_factors(torch.where(length > 0, length, 1.0), v) for n, v in history.items()}
    columns = [products(units, {n: v[:, j : j + 1] for n, v in units.items()}) for j in places]
    cosines = torch.stack(columns, dim=2).clamp(min=0, max=1)
    cosines.diagonal(dim1=1, dim2=2).zero_()
    return cosines
