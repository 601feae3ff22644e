"""The point whose distances to all clients have the least sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt

from ._geometry import broadcast_factors, drop_non_finite, move_model, norms, products, updates
from ._rule import Arrays, Round, ServerRule, share, weighted_mean

ENOUGH = 1e-7
"""A run is done when a step is shorter than this part of the mean distance to the clients."""


@dataclass(frozen=True, kw_only=True)
class GeometricMedian(ServerRule):
    """RFA, the model `z` that minimises `sum_k a_k |z - w_k|` (Pillutla et al., 2022).

    The smoothed Weiszfeld algorithm begins with the mean and repeats `z = sum_k b_k w_k / sum_k b_k` with
    `b_k = a_k / max(nu, |z - w_k|)`.

    Guarantees:

    - the result is a convex combination of the models sent. A client far from the others counts by the inverse of its
      distance. Atypical clients count, but no more than others;
    - while arbitrary clients hold a share s < 1/2 of the weights, the minimum stays near the other clients. Its
      distance from any point c is at most 2 (1 - s) / (1 - 2 s) times that of the farthest other client;
    - each run is iterated until its own steps are short, or `iterations` times, whatever other runs do. A wild client
      at a distance D is reached by about log(D) steps;
    - a client whose model is not finite counts as absent; with no client left the model is kept. Keeps no state.

    Fields:
        weighting: `uniform`, or `size` (by number of examples, which clients state themselves), as published.
        iterations: Most steps of a round.
        nu: Distance below which a client counts no more for being closer.

    >>> sent = {"w": torch.tensor([[[0.0], [1.0], [90.0]]])}
    >>> present, clients = torch.ones((1, 3), dtype=torch.bool), torch.arange(3)[None]
    >>> start = {"w": torch.zeros(1, 1)}
    >>> round = Round(number=1, before=start, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> f"{GeometricMedian().rule({}, round)[0]['w'].item():.3f}"
    '1.000'

    Reference: Pillutla, Kakade and Harchaoui (2022), robust aggregation for federated learning.
    """

    weighting: Literal["size", "uniform"] = "uniform"
    iterations: Annotated[int, Ge(1)] = 100
    nu: Annotated[float, Gt(0)] = 1e-6

    @property
    def reads(self) -> tuple[str, ...]:
        """The numbers of rows, where clients count by them."""
        return ("rows",) if self.weighting == "size" else ()

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Iterate from the mean, in float64."""
        rnd = drop_non_finite(rnd)
        weights = share(rnd.weights if self.weighting == "size" else torch.ones_like(rnd.weights), rnd.present)
        vectors = updates(rnd)
        at, shares = _mean(vectors, weights), weights
        is_running = rnd.present.any(dim=1, keepdim=True)
        for _ in range(self.iterations):
            distances = norms({name: value - at[name] for name, value in vectors.items()})
            pull = weights / distances.clamp(min=self.nu)
            total = pull.cumsum(dim=1)[:, -1:]
            shares = torch.where(is_running, pull / torch.where(total > 0, total, 1.0), shares)
            centre = _mean(vectors, shares)
            step = {name: value - at[name] for name, value in centre.items()}
            scale = (weights * distances).cumsum(dim=1)[:, -1:]
            # a run that is done stays where it is, so that it does not depend on how long others take
            at = {
                name: torch.where(broadcast_factors(is_running, value), value, at[name])
                for name, value in centre.items()
            }
            is_running = is_running & (products(step, step).sqrt() > ENOUGH * scale)
            if not is_running.any():
                break
        return move_model(rnd, vectors, shares), state


def _mean(vectors: Arrays, weights: torch.Tensor) -> Arrays:
    """Sum of vectors (R, K, ...) times weights (R, K), as (R, 1, ...)."""
    return {name: value[:, None] for name, value in weighted_mean(vectors, weights).items()}
