"""The model of the client whose nearest neighbours are closest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from flwr.serverapp.strategy import Strategy

from strategies._rule import Arrays, Round, RuleStrategy, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Krum:
    """The client with the least sum of squared distances to its K - f - 2 nearest others (Blanchard et al., 2017).

    With `keep` = 1 the new model *is* the model of one client: whatever that client memorised, the server publishes.
    With more, it is the unweighted mean of the `keep` clients of least score (Multi-Krum).

    Guarantees:

    - ignores the numbers of examples; keeps no state;
    - up to `f` arbitrary clients are resisted where K >= 2 f + 3; a scenario whose cohorts are smaller is refused;
    - where a round has fewer clients all the same (a varying cohort, failures), the number of neighbours is at least
      one and at most all the others, and `keep` at most all of them; a single client is taken as it is;
    - of clients with equal scores, as the nearest pair of three always are, the one with the lowest number goes first;
    - a model with values that are not finite is infinitely far from the others.

    Distances are sums of squared differences in float64. The shortcut |x|^2 + |y|^2 - 2 x y in float32, as in Flower's
    class, loses a typical update in the rounding of the weights, and takes others for a client's nearest, itself.

    Fields:
        f: how many arbitrary clients a cohort may hold.
        keep: how many clients are averaged; 1 is Krum.

    >>> sent = {"w": torch.tensor([[[0.0], [1.0], [3.0], [90.0], [6.0]]])}
    >>> there = torch.ones((1, 5), dtype=torch.bool)
    >>> who = torch.arange(5)[None]
    >>> round = Round(number=1, before={}, sent=sent, weights=there.double(), present=there, clients=who)
    >>> Krum(f=1).rule({}, round)[0]["w"].tolist()
    [[1.0]]

    Reference: Blanchard et al. (2017), machine learning with adversaries.
    """

    weighting: ClassVar[str] = "uniform"

    f: Annotated[int, Ge(0)] = 0
    keep: Annotated[int, Ge(1)] = 1

    @property
    def min_cohort(self) -> int:
        """The cohort from which the guarantee holds and `keep` clients can be found without the arbitrary ones."""
        return max(2 * self.f + 3, self.keep + self.f)

    def make(self, cohort_size: int) -> Strategy:
        """The rule as a Flower strategy."""
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """Nothing to remember."""
        return {}

    def offer(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        """Nothing beside the model."""
        return {}

    def rule(self, state: Arrays, round: Round) -> tuple[Arrays, Arrays]:
        """The mean of the clients of least score."""
        rank = _ranked(round, self.f).argsort(dim=1)
        chosen = (rank < self.keep) & round.present
        # zeroed, because a weight of zero does not silence a model of infinities
        sent = {
            name: torch.where(chosen.reshape(chosen.shape + (1,) * (values.ndim - 2)), values, torch.zeros_like(values))
            for name, values in round.sent.items()
        }
        return weighted_mean(sent, share(torch.ones_like(round.weights), chosen)), state


def _ranked(round: Round, f: int) -> torch.Tensor:
    """(R, K) places from the least score to the largest, absent ones last; ties by the number of the client."""
    count = round.present.sum(dim=1, keepdim=True)
    neighbours = torch.minimum((count - f - 2).clamp(min=1), count - 1)
    near = _distances(round).sort(dim=2).values
    counted = torch.arange(near.shape[2]) < neighbours[:, :, None]
    score = torch.where(counted, near, torch.zeros_like(near)).sum(dim=2)
    score = torch.where(round.present, score, torch.full_like(score, torch.inf))
    # an absent place is -1 and would win a tie among infinite scores
    number = torch.where(round.present, round.clients, torch.full_like(round.clients, torch.iinfo(torch.int64).max))
    by_number = number.argsort(dim=1, stable=True)
    return by_number.gather(1, score.gather(1, by_number).argsort(dim=1, stable=True))


def _distances(round: Round) -> torch.Tensor:
    """(R, K, K) squared distances between the models of a cohort; infinite to oneself and where one is absent."""
    runs, places = round.present.shape
    squares = torch.full((runs, places, places), torch.inf, dtype=torch.float64)
    for i in range(places):
        for j in range(i):
            apart = torch.zeros(runs, dtype=torch.float64)
            for values in round.sent.values():
                difference = values[:, i].double() - values[:, j].double()
                apart = apart + difference.square().reshape(runs, -1).sum(dim=1)
            both = round.present[:, i] & round.present[:, j] & apart.isfinite()
            squares[:, i, j] = squares[:, j, i] = torch.where(both, apart, torch.full_like(apart, torch.inf))
    return squares
