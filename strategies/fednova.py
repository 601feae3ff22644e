"""Federated averaging of updates that are divided by the number of local steps behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt

from ._client_state import require_reports, updates_of
from ._rule import Arrays, Round, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class FedNova(ServerRule):
    """FedNova: `w = w + tau sum_k p_k u_k / a_k`, `tau = sum_k p_k a_k` (Wang et al., 2020).

    `p_k` is the client's share of the cohort's examples, and `u_k` its update. `a_k` is the sum of the weights with
    which the gradients of its t local steps enter the update. It is t for plain SGD, and with momentum rho
    `(t - rho (1 - rho^t) / (1 - rho)) / (1 - rho)`.

    Where clients take different numbers of steps, `fedavg` follows clients with many steps, and ends at the minimum of
    another objective. Here a client counts by its examples alone. A client with few steps is amplified, and so is
    whatever it memorised.

    Guarantees:

    - equal numbers of steps give `fedavg`, up to rounding; keeps no state;
    - learning rates cancel; a client without rows, and so without steps, does not count.

    Errors: `ValueError` if a client does not report its `steps`. A scenario whose client has another momentum is
    refused.

    Fields:
        client_momentum: Momentum of the clients, which start each round at rest.

    >>> sent = {"w": torch.tensor([[[1.0], [4.0]]])}
    >>> present, clients = torch.ones((1, 2), dtype=torch.bool), torch.arange(2)[None]
    >>> steps, start = {"steps": torch.tensor([[1.0, 4.0]]).double()}, {"w": torch.zeros(1, 1)}
    >>> sizes = present.double()
    >>> round = Round(number=1, before=start, sent=sent, weights=sizes, present=present, clients=clients, report=steps)
    >>> FedNova().rule({}, round)[0]["w"].tolist()
    [[2.5]]

    Reference: Wang, Liu, Liang, Joshi and Poor (2020), tackling the objective inconsistency problem in heterogeneous
    federated optimization.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows", "steps")
    client: ClassVar[str] = "sgd"

    client_momentum: Annotated[float, Ge(0), Lt(1)] = 0.0

    @property
    def client_fields(self) -> Mapping[str, float]:
        """The fields that the client must have, with their values."""
        return {"momentum": self.client_momentum}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Divide, average, and go as far as the mean number of steps."""
        steps, rho = require_reports(rnd, "steps", "fednova"), self.client_momentum
        length = (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
        part = share(rnd.weights, rnd.present & (steps > 0))
        tau = (part * length).cumsum(dim=1)[:, -1:]
        factors = torch.where(length > 0, tau * part / length.clamp(min=torch.finfo(length.dtype).tiny), 0.0)
        change = weighted_mean(updates_of(rnd), factors)
        return {name: before + change[name] for name, before in rnd.before.items()}, state
