"""Server-side Adagrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt

from ._adaptive import moments, step
from ._rule import Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(ServerRule):
    """The averaged update as a pseudo-gradient for Adagrad (Reddi et al., 2021, algorithm 2).

    With `d` the mean of the updates, weighted by numbers of examples: `m = beta_1 m + (1 - beta_1) d`, `v = v + d^2`,
    `w = w + eta m / (sqrt(v) + tau)`, from `m = 0` and `v = tau^2`.

    - Steps shrink in every coordinate that has been moved, and never grow again. A client that first participates late
      changes less than one that participated early.
    - Flower's class starts `v` at zero, below the tau squared that the paper asks for, so this one is our own.
    - Keeps two models of state.

    Fields:
        server_lr: The server learning rate eta.
        beta_1: Decay of the first moment; the paper uses none here.
        tau: Degree of adaptivity; larger is closer to plain averaging.

    >>> FedAdagrad(server_lr=0.1).beta_1
    0.0

    Reference: Reddi et al. (2021), adaptive federated optimization.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)

    server_lr: Annotated[float, Gt(0)] = 0.1
    beta_1: Annotated[float, Ge(0), Lt(1)] = 0.0
    tau: Annotated[float, Gt(0)] = 1e-3

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """First moments of zero and second moments of tau squared."""
        return moments(before, self.tau)

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """One step of Adagrad on the mean update."""
        return step(state, rnd, eta=self.server_lr, beta_1=self.beta_1, tau=self.tau, second=lambda v, d: v + d * d)
