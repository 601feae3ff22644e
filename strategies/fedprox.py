"""Federated averaging of clients that are held near the global model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from ._rule import Arrays, Round, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class FedProx(ServerRule):
    """Each client adds `mu / 2 * |w - w_0|^2` to its loss, with `w_0` the model it was sent (Li et al., 2020).

    The server averages by size, as `fedavg` does. `mu` reaches the clients in the server payload; client `sgd`
    understands it.

    Guarantees:

    - `mu` of 0 is `fedavg`, to the last bit;
    - the first local step equals that of `fedavg`, since the pull begins at zero. With more steps, a larger `mu` keeps
      updates shorter, as long as `lr * mu` is well below 1.

    Fields:
        mu: Strength of the pull.

    >>> FedProx(mu=0.1).payload({}, torch.tensor([[3, 4]]))["mu"].tolist()
    [[0.1, 0.1]]

    Reference: Li et al. (2020), federated optimization in heterogeneous networks.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)
    client: ClassVar[str] = "sgd"

    mu: Annotated[float, Ge(0)] = 0.1

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        """The strength of the pull, the same for all."""
        return {"mu": torch.full(clients.shape, self.mu, dtype=torch.float64)}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """The mean of what was sent, weighted by numbers of examples."""
        return weighted_mean(rnd.sent, share(rnd.weights, rnd.present)), state
