"""Server-side Adam."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from flwr.serverapp.strategy import Strategy

from strategies._rule import Arrays, Round, RuleStrategy, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class FederatedAdam:
    """The averaged update as a pseudo-gradient for Adam (Reddi et al., 2021, algorithm 2).

    With `d` the weighted mean of the updates: `m = beta_1 m + (1 - beta_1) d`, `v = beta_2 v + (1 - beta_2) d^2`,
    `w = w + eta m / (sqrt(v) + tau)`, from `m = 0` and `v = tau^2`. As published there is no bias correction;
    Flower's class corrects with the round plus one and returns float64, so this one is our own. float32 in and out.

    Fields:
        eta: server learning rate.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        tau: degree of adaptivity; larger is closer to plain averaging with momentum.

    >>> FederatedAdam(eta=0.03).beta_1
    0.9
    """

    eta: float = 0.03
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.eta > 0 and self.tau > 0):
            raise ValueError(f"eta and tau must be greater than 0, got eta={self.eta}, tau={self.tau}")
        if not (0 <= self.beta_1 < 1 and 0 <= self.beta_2 < 1):
            raise ValueError(f"beta_1 and beta_2 must lie in [0, 1), got {self.beta_1} and {self.beta_2}")

    def make(self, cohort_size: int) -> Strategy:
        """The rule as a Flower strategy."""
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """First moments of zero and second moments of tau squared, as `m:` and `v:`."""
        moments = {f"m:{name}": torch.zeros_like(value) for name, value in before.items()}
        return moments | {f"v:{name}": torch.full_like(value, self.tau**2) for name, value in before.items()}

    def offer(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        """Nothing beside the model."""
        return {}

    def rule(self, state: Arrays, round: Round) -> tuple[Arrays, Arrays]:
        """One step of Adam on the mean update."""
        mean = weighted_mean(round.sent, share(round.weights, round.present))
        after: Arrays = {}
        moments: Arrays = {}
        for name, before in round.before.items():
            update = mean[name] - before
            m = self.beta_1 * state[f"m:{name}"] + (1 - self.beta_1) * update
            v = self.beta_2 * state[f"v:{name}"] + (1 - self.beta_2) * update * update
            after[name] = before + self.eta * m / (v.sqrt() + self.tau)
            moments |= {f"m:{name}": m, f"v:{name}": v}
        return after, moments
