"""A step of fixed size in each coordinate, in the direction of most clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from ._geometry import broadcast_factors, drop_non_finite
from ._rule import Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class SignMajority(ServerRule):
    """signSGD with majority vote: each client has one vote in each coordinate (Bernstein et al., 2019).

    `w = w + eta sign(sum_k sign(u_k))`, with `u_k` the updates.

    Guarantees:

    - a coordinate moves by `server_lr`, or not at all where votes are equal or no client moved it. The learning of a
      single client is lost where the majority votes otherwise, however far its update went. A coordinate that one
      client alone moved (an input that only it has) is moved as far as any other;
    - fewer than half of the clients cannot turn a coordinate in which all others agree;
    - ignores the numbers of examples and the lengths of updates; keeps no state;
    - a client whose model is not finite has no vote; without any vote the model is kept.

    In the paper, votes are on gradients. Here they are on the updates of a round of local steps.

    Fields:
        server_lr: Size of a step.

    >>> import torch
    >>> sent = {"w": torch.tensor([[[0.1, 2.0], [0.3, -1.0], [-90.0, 0.0]]])}
    >>> present, clients = torch.ones((1, 3), dtype=torch.bool), torch.arange(3)[None]
    >>> start = {"w": torch.zeros(1, 2)}
    >>> round = Round(number=1, before=start, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> SignMajority(server_lr=0.5).rule({}, round)[0]["w"].tolist()
    [[0.5, 0.0]]

    Reference: Bernstein, Zhao, Azizzadenesheli and Anandkumar (2019), signSGD with majority vote is communication
    efficient and fault tolerant.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    server_lr: Annotated[float, Gt(0)] = 0.005

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Count the votes."""
        rnd = drop_non_finite(rnd)
        after = {}
        for name, before in rnd.before.items():
            votes = (rnd.sent[name] - before[:, None]).sign() * broadcast_factors(rnd.present, rnd.sent[name])
            after[name] = before + self.server_lr * votes.sum(dim=1).sign()
        return after, state
