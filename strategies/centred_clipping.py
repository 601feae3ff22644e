"""Updates that are clipped around the aggregate of the round before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt

from ._geometry import drop_non_finite, norms, or_before, updates
from ._rule import Arrays, Round, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class CentredClipping(ServerRule):
    """The mean of what is left of each update within a ball around the last aggregate (Karimireddy et al., 2021).

    The step `v = v + 1/K sum_k (u_k - v) min(1, radius / |u_k - v|)`, with `u_k` the updates, is repeated. It begins
    with the `v` of the last round, at first zero. Then `w = w + v`.

    Guarantees:

    - ignores the numbers of examples;
    - one client moves the aggregate by at most `2 radius / K` for each of the `iterations`, whatever it sends;
    - a radius beyond all updates gives the uniform mean;
    - keeps the last aggregate of each run: a direction that clients no longer take fades instead of ending;
    - a client whose model is not finite counts as absent; with no client left the model is kept.

    In the paper, clients send a momentum of their own, and outliers then provably cannot hide over rounds. Here they
    send plain updates, and the guarantee is that of a single round.

    Fields:
        radius: Radius of the ball, in units of length of an update.
        iterations: How often a round is clipped around its own result.

    >>> sent = {"w": torch.tensor([[[1.0], [1.0], [-90.0]]])}
    >>> present, clients = torch.ones((1, 3), dtype=torch.bool), torch.arange(3)[None]
    >>> start = {"w": torch.zeros(1, 1)}
    >>> round = Round(number=1, before=start, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> clipping = CentredClipping(radius=0.75)
    >>> clipping.rule(clipping.state(start, 3), round)[0]["w"].tolist()
    [[0.25]]

    Reference: Karimireddy, He and Jaggi (2021), learning from history for Byzantine robust optimization.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    radius: Annotated[float, Gt(0)] = 1.0
    iterations: Annotated[int, Ge(1)] = 1

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """A last aggregate of zero."""
        return {name: torch.zeros_like(value, dtype=torch.float64) for name, value in before.items()}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Clip around the last aggregate, and go on from what comes of it."""
        rnd = drop_non_finite(rnd)
        weights = share(torch.ones_like(rnd.weights), rnd.present)
        vectors, at = updates(rnd), state
        for _ in range(self.iterations):
            offsets = {name: value - at[name][:, None] for name, value in vectors.items()}
            steps = weighted_mean(offsets, weights * (self.radius / norms(offsets)).clamp(max=1))
            at = {name: value + steps[name] for name, value in at.items()}
        after = {name: (before.double() + at[name]).to(before.dtype) for name, before in rnd.before.items()}
        return or_before(rnd, after), at
