"""Averaged updates, extrapolated as far as their disagreement allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt

from ._geometry import move_model, products, updates
from ._rule import Arrays, Round, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class FedExP(ServerRule):
    """The mean update `d`, taken `eta >= 1` times as far where clients pull apart (Jhunjhunwala et al., 2023).

    `w = w + eta d`, `eta = max(1, sum_k a_k |u_k|^2 / (2 (|d|^2 + epsilon)))`, with `u_k` the updates, `a_k` their
    weights and `d = sum_k a_k u_k`.

    - Updates that agree give `eta` 1, which is `fedavg`; those that cancel out are multiplied, by at most
      `sum_k a_k |u_k|^2 / (2 epsilon)`. So a step gets longer where clients are unlike each other.
    - No resistance to attacks: one long update lengthens the step in its own direction.
    - Keeps no state. The paper weights uniformly, and reads the mean of the last two models; this is the last one.

    Fields:
        weighting: `uniform`, as published, or `size` (by number of examples).
        epsilon: Keeps steps finite where updates cancel out; in units of squared length of an update.

    >>> sent = {"w": torch.tensor([[[3.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [0.0, -2.0]]])}
    >>> present = torch.ones((1, 4), dtype=torch.bool)
    >>> start, clients = {"w": torch.zeros(1, 2)}, torch.arange(4)[None]
    >>> round = Round(number=1, before=start, sent=sent, weights=clients.double(), present=present, clients=clients)
    >>> FedExP(epsilon=1e-9).rule({}, round)[0]["w"].tolist()
    [[6.5, 6.5]]

    Reference: Jhunjhunwala, Wang and Joshi (2023), FedExP: speeding up federated averaging via extrapolation.
    """

    weighting: Literal["size", "uniform"] = "uniform"
    epsilon: Annotated[float, Gt(0)] = 1e-3

    @property
    def reads(self) -> tuple[str, ...]:
        """The numbers of rows, where clients count by them."""
        return ("rows",) if self.weighting == "size" else ()

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """One extrapolated step."""
        weights = share(rnd.weights if self.weighting == "size" else torch.ones_like(rnd.weights), rnd.present)
        vectors = updates(rnd)
        mean = {name: value[:, None] for name, value in weighted_mean(vectors, weights).items()}
        mean_square = weighted_mean({"": products(vectors, vectors)}, weights)[""][:, None]
        eta = (mean_square / (2 * (products(mean, mean) + self.epsilon))).clamp(min=1)
        return move_model(rnd, mean, eta), state
