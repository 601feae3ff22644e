"""Server-side Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Lt

from ._adaptive import moments, step
from ._rule import Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class FedAdam(ServerRule):
    """The averaged update as a pseudo-gradient for Adam (Reddi et al., 2021, algorithm 2).

    With `d` the mean of the updates, weighted by numbers of examples: `m = beta_1 m + (1 - beta_1) d`,
    `v = beta_2 v + (1 - beta_2) d^2`, `w = w + eta m / (sqrt(v) + tau)`, from `m = 0` and `v = tau^2`.

    - As published, there is no bias correction. Flower's class corrects with the round plus one and returns float64, so
      this class is the project's own. Input and output are float32.
    - Keeps two models of state. In the first round, no coordinate moves by more than
      `eta (1 - beta_1) / sqrt(1 - beta_2)`, however long the updates are. A coordinate that few clients move is moved
      as much as any other.

    Fields:
        server_lr: The server learning rate eta.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        tau: Degree of adaptivity; larger is closer to plain averaging with momentum.

    >>> FedAdam(server_lr=0.03).beta_1
    0.9

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
        """One step of Adam on the mean update."""
        return step(
            state,
            rnd,
            eta=self.server_lr,
            beta_1=self.beta_1,
            tau=self.tau,
            second=lambda v, d: self.beta_2 * v + (1 - self.beta_2) * d * d,
        )
