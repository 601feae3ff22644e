"""Clients take turns in a fixed random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History, Law


@dataclass(frozen=True, kw_only=True)
class Cyclic:
    """Blocks of `size` clients in the order in which they signed up, from the start again after the last.

    Round r takes places (r - 1) K to r K - 1 of the order, modulo N. Where K does not divide N, blocks shift from one
    pass to the next. Order instead of sampling, as where clients are available in turn (Eichner et al., 2019).

    Fields

    - `size`: clients in every cohort, K.

    Guarantees:

    - sorted, distinct, always exactly `size` clients;
    - after T rounds every client has taken part floor(T K / N) or ceil(T K / N) times;
    - two participations of a client are at least floor(N / K) rounds apart;
    - nothing is drawn: the order is random, and the same in every round.

    Errors: `ComponentError` if `size` exceeds the number of clients.

    >>> history = History.start([1] * 5, order=[3, 1, 4, 0, 2])
    >>> [Cyclic(size=2).cohort(round, history, np.random.default_rng(0)).tolist() for round in (1, 2, 3)]
    [[1, 3], [0, 4], [2, 3]]

    Reference: Eichner et al. (2019), semi-cyclic SGD.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    law: ClassVar[Law] = "spaced"

    size: Annotated[int, annotated_types.Ge(1)] = 10

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        history.require(self.size, "block")
        return np.sort(history.order[self._places(round_number, history)])

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities, given the order: 1 for the next `size` clients, 0 for all others."""
        probabilities = np.zeros(history.num_clients)
        probabilities[history.order[self._places(round_number, history)]] = 1.0
        return probabilities

    def min_separation(self, num_clients: int) -> int:
        """Rounds from one turn of a client to its next, at least."""
        return max(1, num_clients // self.size)

    def _places(self, round_number: int, history: History) -> IntArray:
        """Places in the order of the clients of this round."""
        places: IntArray = ((round_number - 1) * self.size + np.arange(self.size)) % history.num_clients
        return places
