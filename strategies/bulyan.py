"""Clients chosen by Krum one after another, and in each coordinate the mean of the values around their median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from ._geometry import drop_non_finite
from ._rule import Arrays, Round, ServerRule
from ._selection import distances, rank_by_score


@dataclass(frozen=True, kw_only=True)
class Bulyan(ServerRule):
    """Krum, repeated until theta = K - 2 f are chosen, then a trimmed mean around the median (El Mhamdi et al., 2018).

    In each repetition, Krum chooses one of the clients that are left, and this client is taken out. In each coordinate
    the result is the mean of the beta = theta - 2 f chosen values that are closest to the median of all chosen.

    Guarantees:

    - ignores the numbers of examples; keeps no state;
    - with at most `f` arbitrary clients and K >= 4 f + 3, no coordinate lies further from the median of the chosen than
      honest ones do. A scenario whose cohorts are smaller is refused;
    - in a round that has fewer clients nevertheless, f is the largest that allows this: (K - 3) / 4 rounded down. With
      fewer than seven clients the result is the plain mean;
    - ties: the smaller of values equally close to the median goes first, and the lowest number of clients with equal
      scores;
    - a client whose model is not finite counts as absent; with no client left the model is kept.

    Flower's class chooses all theta by one round of scores instead of repeatedly. Its scores therefore still count
    clients that are chosen already. It skips a round with fewer clients.

    Fields:
        f: How many arbitrary clients a cohort may hold.

    >>> sent = {"w": torch.tensor([[[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [90.0]]])}
    >>> present, clients = torch.ones((1, 7), dtype=torch.bool), torch.arange(7)[None]
    >>> start = {"w": torch.zeros(1, 1)}
    >>> round = Round(number=1, before=start, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> Bulyan(f=1).rule({}, round)[0]["w"].tolist()
    [[2.0]]

    Reference: El Mhamdi, Guerraoui and Rouault (2018), the hidden vulnerability of distributed learning in Byzantium.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    f: Annotated[int, Ge(0)] = 1

    @property
    def min_cohort(self) -> int:
        """The cohort from which the guarantee holds."""
        return 4 * self.f + 3

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Choose, then average around the median; run by run, because they may differ in how many are there."""
        rnd = drop_non_finite(rnd)
        squares = distances(rnd)
        after: dict[str, list[torch.Tensor]] = {name: [] for name in rnd.before}
        for run, present in enumerate(rnd.present):
            f = min(self.f, max(0, (int(present.sum()) - 3) // 4))
            places = _choose_places(squares[run : run + 1], present[None], rnd.clients[run : run + 1], f)
            for name, before in rnd.before.items():
                sent = rnd.sent[name][run, places]
                after[name].append(_around_median(sent, len(places) - 2 * f) if places else before[run])
        return {name: torch.stack(values) for name, values in after.items()}, state


def _choose_places(squares: torch.Tensor, present: torch.Tensor, clients: torch.Tensor, f: int) -> list[int]:
    """The places of one run that Krum takes, each from those that are left."""
    places: list[int] = []
    candidates = present.clone()
    for _ in range(int(present.sum()) - 2 * f):
        places.append(int(rank_by_score(squares, candidates, clients, f)[0, 0]))
        candidates[0, places[-1]] = False
    return places


def _around_median(values: torch.Tensor, beta: int) -> torch.Tensor:
    """(theta, ...) -> (...): the mean of the beta values closest to the median, added up in ascending order."""
    ascending = values.sort(dim=0).values.double()
    middle = (ascending[(len(values) - 1) // 2] + ascending[len(values) // 2]) / 2
    rank = (ascending - middle).abs().argsort(dim=0, stable=True).argsort(dim=0)
    total = torch.zeros_like(middle)
    for row, value in zip(rank, ascending, strict=True):
        total = total + torch.where(row < beta, value, torch.zeros_like(value))
    return (total / beta).to(values.dtype)
