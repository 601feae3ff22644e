"""Krum's scores: how near a client's model is to its nearest others."""

from __future__ import annotations

import torch

from ._geometry import broadcast_factors
from ._rule import Arrays, Round, share, weighted_mean


def mean_of_best(rnd: Round, f: int, keep: torch.Tensor) -> Arrays:
    """The unweighted mean of the `keep` (R, 1) clients of least score."""
    order = rank_by_score(distances(rnd), rnd.present, rnd.clients, f)
    selection = (order.argsort(dim=1) < keep) & rnd.present
    # zeroed, because a weight of zero does not silence a model of infinities
    sent = {n: torch.where(broadcast_factors(selection, v), v, torch.zeros_like(v)) for n, v in rnd.sent.items()}
    return weighted_mean(sent, share(torch.ones_like(rnd.weights), selection))


def rank_by_score(squares: torch.Tensor, present: torch.Tensor, clients: torch.Tensor, f: int) -> torch.Tensor:
    """(R, K) places from the least score to the largest, absent clients last; ties by the number of the client.

    The score of a client is a sum of squared distances (R, K, K) to others. With n clients present, it is over the
    `n - f - 2` nearest of them, at least one and at most all others.
    """
    count = present.sum(dim=1, keepdim=True)
    neighbours = torch.minimum((count - f - 2).clamp(min=1), count - 1)
    ascending = torch.where(present[:, None], squares, torch.inf).sort(dim=2).values
    is_neighbour = torch.arange(ascending.shape[2]) < neighbours[:, :, None]
    score = torch.where(is_neighbour, ascending, torch.zeros_like(ascending)).sum(dim=2)
    score = torch.where(present, score, torch.full_like(score, torch.inf))
    # an absent place is -1 and would win a tie among infinite scores
    number = torch.where(present, clients, torch.full_like(clients, torch.iinfo(torch.int64).max))
    by_number = number.argsort(dim=1, stable=True)
    return by_number.gather(1, score.gather(1, by_number).argsort(dim=1, stable=True))


def distances(rnd: Round) -> torch.Tensor:
    """(R, K, K) squared distances between the models of a cohort; infinite to oneself and where one is absent."""
    runs, places = rnd.present.shape
    squares = torch.full((runs, places, places), torch.inf, dtype=torch.float64)
    for i in range(places):
        for j in range(i):
            distance = torch.zeros(runs, dtype=torch.float64)
            for values in rnd.sent.values():
                difference = values[:, i].double() - values[:, j].double()
                distance = distance + difference.square().reshape(runs, -1).sum(dim=1)
            both = rnd.present[:, i] & rnd.present[:, j] & distance.isfinite()
            squares[:, i, j] = squares[:, j, i] = torch.where(both, distance, torch.full_like(distance, torch.inf))
    return squares
