"""Server-side Yogi, an Adam whose second moment changes by steps of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt

from ._adaptive import moments, step
from ._rule import Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class FedYogi(ServerRule):
    """The averaged update as a pseudo-gradient for Yogi (Reddi et al., 2021, algorithm 2).

    With `d` the mean of the updates, weighted by numbers of examples: `m = beta_1 m + (1 - beta_1) d`,
    `v = v - (1 - beta_2) d^2 sign(v - d^2)`, `w = w + eta m / (sqrt(v) + tau)`, from `m = 0` and `v = tau^2`.

    - Where `d^2` falls below `v`, the moment shrinks by a multiple of `d^2` and not of itself. After a large update a
      coordinate stays slow for longer than under `fedadam`.
    - Flower's class starts `v` at zero, below the tau squared that the paper asks for, so this one is our own.
    - Keeps two models of state.

    Fields:
        server_lr: The server learning rate eta.
        beta_1: Decay of the first moment.
        beta_2: One minus the size of a step of the second moment.
        tau: Degree of adaptivity; larger is closer to plain averaging with momentum.

    >>> FedYogi(server_lr=0.03).beta_2
    0.99

    Reference: Reddi et al. (2021), adaptive federated optimization.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)

    server_lr: Annotated[float, Gt(0)] = 0.03
    beta_1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta_2: Annotated[float, Ge(0), Lt(1)] = 0.99
    tau: Annotated[float, Gt(0)] = 1e-3

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """First moments of zero and second moments of tau squared."""
        return moments(before, self.tau)

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """One step of Yogi on the mean update."""
        return step(
            state,
            rnd,
            eta=self.server_lr,
            beta_1=self.beta_1,
            tau=self.tau,
            second=lambda v, d: v - (1 - self.beta_2) * d * d * (v - d * d).sign(),
        )
