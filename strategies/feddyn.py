"""Clients whose losses are changed so that their minima agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt

from ._client_state import known_share, part, rows_of, table, updates_of, with_rows
from ._rule import Arrays, Round, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class FedDyn(ServerRule):
    """FedDyn: a client minimises `L_k(w) - g_k w + alpha / 2 |w - w_0|^2`, with w_0 the model sent (Acar et al., 2021).

    With its update `u_k`, `g_k = g_k - alpha u_k`, which at a minimum is its gradient there. Over the N clients,
    `h = h - alpha sum_S u_k / N` and `w = mean_S w_k - h / alpha`. All g_k and h start at zero.

    The server computes g_k from the update. Clients send no more than in `fedavg` and remember nothing. In addition to
    the model they are given `-g_k` and alpha. The strategy keeps N models in each run.

    Guarantees:

    - clients count equally, whatever their numbers of examples;
    - h stays the mean of the g_k of all N clients;
    - a client that is absent keeps its g_k; one without rows does too, since its update is zero.

    If all N clients participate, the model moves about twice as far in the first round as by averaging. With few local
    steps, which leave clients far from their minima, a small alpha makes this unstable.

    Fields:
        alpha: Strength of the pull towards the model sent; g_k is learned at this rate.

    >>> start, dyn = {"w": torch.zeros(1, 1)}, FedDyn(alpha=0.5)
    >>> present, clients = torch.ones((1, 1), dtype=torch.bool), torch.zeros((1, 1), dtype=torch.int64)
    >>> sent = {"w": torch.tensor([[[1.0]]])}
    >>> round = Round(number=1, before=start, sent=sent, weights=present, present=present, clients=clients)
    >>> after, state = dyn.rule(dyn.state(start, 2), round)
    >>> after["w"].tolist(), state["all:w"].tolist(), state["own:w"].tolist()
    ([[1.5]], [[-0.25]], [[[-0.5], [0.0]]])

    Reference: Acar et al. (2021), federated learning based on dynamic regularization.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    client: ClassVar[str] = "sgd"

    alpha: Annotated[float, Gt(0)] = 0.1

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """h and, for each client, g_k, of zero: `all:` and `own:`."""
        sums = {f"all:{name}": torch.zeros_like(value) for name, value in before.items()}
        return sums | {f"own:{name}": value for name, value in table(before, num_clients).items()}

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        """`-g_k`, which is added to every gradient, and the strength of the pull."""
        linear = {f"linear:{name}": -rows_of(pull, clients) for name, pull in part(state, "own:").items()}
        return linear | {"mu": torch.full(clients.shape, self.alpha, dtype=torch.float64)}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Average the models, and go on by what the clients that are away would pull."""
        updates, sums, client_pulls = updates_of(rnd), part(state, "all:"), part(state, "own:")
        equal = rnd.present.to(torch.float64)
        mean = weighted_mean(updates, share(equal, rnd.present))
        after: Arrays = {}
        later: Arrays = {}
        for name, before in rnd.before.items():
            new_pulls = rows_of(client_pulls[name], rnd.clients) - self.alpha * updates[name]
            rows = with_rows(client_pulls[name], rnd.clients, rnd.present, new_pulls)
            mean_change = weighted_mean({name: updates[name]}, equal / rows.shape[1])[name]
            h = sums[name] * known_share(client_pulls[name], rows) - self.alpha * mean_change
            after[name] = before + mean[name] - h / self.alpha
            later |= {f"all:{name}": h, f"own:{name}": rows}
        return after, later
