"""Federated averaging with momentum on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from flwr.serverapp import strategy as flwr_strategy
from flwr.serverapp.strategy import Strategy

from ._rule import ALONE, Arrays, Round, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class FedAvgM(ServerRule):
    """The averaged update as a gradient for momentum: `v = momentum v + d`, `w = w + eta v` (Hsu et al., 2019).

    `d` is the mean of the updates weighted by numbers of examples, and `v` starts at zero. After t rounds, an update
    still acts with weight `momentum^t`. A client therefore goes on moving the model while it does not participate.

    Guarantees:

    - `momentum` 0 with `server_lr` 1 is `fedavg`, to the last bit;
    - the message path is Flower's own class, which keeps the model of the last round itself; the rule agrees with it
      to the last bit.

    Fields:
        momentum: Share of the velocity carried to the next round.
        server_lr: The server learning rate eta.

    >>> type(FedAvgM(momentum=0.5).make(3)).__name__
    'FedAvgM'

    Reference: Hsu, Qi and Brown (2019), measuring the effects of non-identical data distribution.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)

    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    server_lr: Annotated[float, Gt(0)] = 1.0

    def make(self, cohort_size: int) -> Strategy:
        """Flower's FedAvgM."""
        return flwr_strategy.FedAvgM(**ALONE, server_momentum=self.momentum, server_learning_rate=self.server_lr)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """A velocity of zero, pointing back as Flower's does: from the new model to the old one."""
        return {name: torch.zeros_like(value) for name, value in before.items()} if self.momentum else {}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """One step of momentum on the mean update."""
        mean = weighted_mean(rnd.sent, share(rnd.weights, rnd.present))
        if not self.momentum and self.server_lr == 1:
            # taking the step apart and putting it together again would round
            return mean, state
        velocity = {name: before - mean[name] for name, before in rnd.before.items()}
        if self.momentum:
            velocity = {name: self.momentum * state[name] + back for name, back in velocity.items()}
        after = {name: before - self.server_lr * velocity[name] for name, before in rnd.before.items()}
        return after, velocity if self.momentum else state
