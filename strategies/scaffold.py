"""Clients whose steps are corrected for what their own data pull towards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt

from ._client_state import known_share, part, require_reports, rows_of, table, updates_of, with_rows
from ._rule import Arrays, Round, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Scaffold(ServerRule):
    """Local steps go along `g - c_k + c`, with control variates c_k of the client, c of all (Karimireddy et al., 2020).

    After t steps of learning rate l, with update `u_k` (option II), `c_k = c_k - c - u_k / (t l)`, the mean gradient
    that the client met. Then `w = w + eta mean_S u_k`, and `c = c + sum_S (change of c_k) / N`. All control variates
    start at zero.

    The server computes c_k from the update, since it knows everything in it. Clients therefore send nothing more than
    in `fedavg` and remember nothing. Their server payload is `c - c_k`. The strategy keeps N models in each run.

    Guarantees:

    - clients count equally, whatever their numbers of examples: the mean of their losses is minimised;
    - the first round equals that of `fedavg` with uniform weights; so is every round if all have the same gradients;
    - a client that is absent, or has no rows, keeps its control variate;
    - c stays the mean of the c_k of all N clients.

    While a client does not participate, the mean gradient of its last participation still acts through c on all others.

    Errors: `ValueError` if a client does not report its `steps` and `lr`. A scenario whose client has momentum is
    refused, since its update is then no sum of gradients times l.

    Fields:
        server_lr: Server learning rate.

    >>> start = {"w": torch.zeros(1, 1)}
    >>> present, ids = torch.ones((1, 1), dtype=torch.bool), torch.zeros((1, 1), dtype=torch.int64)
    >>> report = {"steps": torch.tensor([[4.0]]), "lr": torch.tensor([[0.5]])}
    >>> sent = {"w": torch.tensor([[[-1.0]]])}
    >>> round = Round(number=1, before=start, sent=sent, weights=present, present=present, clients=ids, report=report)
    >>> after, state = Scaffold().rule(Scaffold().state(start, 2), round)
    >>> after["w"].tolist(), state["all:w"].tolist(), state["own:w"].tolist()
    ([[-1.0]], [[0.25]], [[[0.5], [0.0]]])

    Reference: Karimireddy et al. (2020), SCAFFOLD: stochastic controlled averaging for federated learning.
    """

    reads: ClassVar[tuple[str, ...]] = ("steps", "lr")
    client: ClassVar[str] = "sgd"
    client_fields: ClassVar[Mapping[str, float]] = {"momentum": 0.0}

    server_lr: Annotated[float, Gt(0)] = 1.0

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """Control variates of zero: `all:` and, for each client, `own:`."""
        means = {f"all:{name}": torch.zeros_like(value) for name, value in before.items()}
        return means | {f"own:{name}": value for name, value in table(before, num_clients).items()}

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        """`c - c_k`, which is added to every gradient."""
        means, client_variates = part(state, "all:"), part(state, "own:")
        return {f"linear:{name}": c[:, None] - rows_of(client_variates[name], clients) for name, c in means.items()}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Average the updates, and bring the control variates up to date."""
        steps, lr = require_reports(rnd, "steps", "scaffold"), require_reports(rnd, "lr", "scaffold")
        has_trained = rnd.present & (steps > 0)
        updates, means, client_variates = updates_of(rnd), part(state, "all:"), part(state, "own:")
        mean = weighted_mean(updates, share(has_trained.to(torch.float64), has_trained))
        after: Arrays = {}
        later: Arrays = {}
        for name, before in rnd.before.items():
            old_variates, c = rows_of(client_variates[name], rnd.clients), means[name]
            scale = (1 / torch.where(has_trained, steps * lr, 1.0)).to(before.dtype)
            new_variates = (
                old_variates - c[:, None] - updates[name] * scale.reshape(*scale.shape, *(1,) * (before.ndim - 1))
            )
            rows = with_rows(client_variates[name], rnd.clients, has_trained, new_variates)
            change = weighted_mean({name: new_variates - old_variates}, has_trained.to(torch.float64) / rows.shape[1])[
                name
            ]
            after[name] = before + self.server_lr * mean[name]
            later |= {f"all:{name}": c * known_share(client_variates[name], rows) + change, f"own:{name}": rows}
        return after, later
