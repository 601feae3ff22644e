"""Averaging in which clients count by how far they agree with the rest of the cohort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ._geometry import broadcast_factors, drop_non_finite, norms, or_before, products, updates
from ._rule import Arrays, Round, ServerRule, share, weighted_mean

NOTHING = 1e-9
"""Directions whose sum is shorter than this cancel out."""


@dataclass(frozen=True, kw_only=True)
class Typicality(ServerRule):
    """Weights by examples, times `exp(beta c_k)`, where `c_k` is how typical the direction of client k is.

    `w = sum_k a_k w_k`, `a_k = n_k exp(beta c_k) / sum_j n_j exp(beta c_j)`, with the agreement
    `c_k = cos(u_k, sum_{j != k} u_j / |u_j|)` in [-1, 1] of an update with the mean direction of all others.

    Guarantees:

    - `beta` 0 is `fedavg`, to the last bit. If `beta` is positive, atypical clients count less, but never nothing.
      Their weight falls to a share of `exp(-2 beta)` of that of typical clients with as many examples. If `beta` is
      negative, they count more;
    - the length of an update does not decide which client is typical, but it still counts in the mean. A wild client is
      attenuated by `exp(-2 beta)` at most, and this is no robust rule;
    - a client alone, one that did not move, and one whose others cancel out, have `c_k` 0;
    - a client whose model is not finite counts as absent; with no client left the model is kept. Keeps no state.

    Facts that an atypical client alone has learned, such as wrong labels and canaries, reach the aggregate with its
    weight. Its own model, and the leakage of that, is the same whatever `beta` is.

    Fields:
        beta: How much agreement counts; negative favours atypical clients.

    >>> sent = {"w": torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]])}
    >>> present, clients = torch.ones((1, 3), dtype=torch.bool), torch.arange(3)[None]
    >>> start = {"w": torch.zeros(1, 2)}
    >>> round = Round(number=1, before=start, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> for beta in (-20.0, 0.0, 20.0):
    ...     print([f"{value:.2f}" for value in Typicality(beta=beta).rule({}, round)[0]["w"][0].tolist()])
    ['0.00', '1.00']
    ['1.00', '0.33']
    ['1.50', '0.00']

    Of this project, not from the literature.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)

    beta: float = 2.0

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Weigh and average."""
        rnd = drop_non_finite(rnd)
        # the largest exponent is zero, so that none is beyond what a number can hold
        weights = rnd.weights * torch.exp(self.beta * agreement(rnd) - abs(self.beta)) if self.beta else rnd.weights
        return or_before(rnd, weighted_mean(rnd.sent, share(weights, rnd.present))), state


def agreement(rnd: Round) -> torch.Tensor:
    """(R, K) cosines between each update and the sum of the directions of all others that are present."""
    vectors = updates(rnd)
    length = norms(vectors)
    moves = rnd.present & (length > 0)
    units = {n: v / broadcast_factors(torch.where(moves, length, torch.inf), v) for n, v in vectors.items()}
    total = weighted_mean(units, rnd.present.double())
    others = {name: total[name][:, None] - value for name, value in units.items()}
    size = norms(others)
    cosines = products(units, others) / torch.where(size > NOTHING, size, torch.inf)
    return cosines.clamp(min=-1, max=1)
