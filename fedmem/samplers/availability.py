"""Clients come and go, and only those that are there can be picked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.sampler import History


@dataclass(frozen=True, kw_only=True)
class Availability:
    """A Markov chain of two states for each client; the cohort is uniform among the available clients.

    From one round to the next an unavailable client arrives with probability a = `arrive`, and an available one leaves
    with b = `leave`. Clients are independent of each other. Chains start in their stationary law, so that in every
    round a client is available with probability a / (a + b). Stays last 1 / b rounds in the mean, absences 1 / a. With
    a + b = 1 rounds are independent. The smaller both are, the longer the same clients are available.

    Fields

    - `size`: clients in a cohort, K; all available clients, if these are fewer.
    - `arrive`: probability that an unavailable client is available in the next round.
    - `leave`: probability that an available client is unavailable in the next round.

    Guarantees:

    - sorted and distinct, at most `size` clients, possibly none;
    - given the available clients, every set of `size` of them is equally likely;
    - availability depends on draws alone, neither on data nor on earlier cohorts.

    Errors: `ComponentError` if `size` exceeds the number of clients.

    >>> from dataclasses import replace
    >>> history = replace(History.start([9] * 4), available=np.array([True, False, True, False]))
    >>> Availability(size=3).cohort(1, history, np.random.default_rng(0)).tolist()
    [0, 2]
    >>> Availability(size=3, arrive=1.0, leave=1.0).reachable_clients(2, history, np.random.default_rng(0)).tolist()
    [False, True, False, True]

    References: Ribero, Vikalo and de Veciana (2022), federated learning under intermittent client availability. Rodio,
    Faticanti, Marfoq, Neglia and Leonardi (2023), federated learning under heterogeneous and correlated availability.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    size: Annotated[int, annotated_types.Ge(1)] = 10
    arrive: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.1
    leave: Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)] = 0.1

    def reachable_clients(self, round_number: int, history: History, rng: np.random.Generator) -> BoolArray:
        """(N,) which clients are available, given those of the round before."""
        draws = rng.random(history.num_clients)
        if round_number == 1:
            return draws < self.arrive / (self.arrive + self.leave)
        return np.where(history.available, draws >= self.leave, draws < self.arrive)

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        history.require(self.size)
        candidates = np.flatnonzero(history.available)
        return np.sort(rng.choice(candidates, size=min(self.size, len(candidates)), replace=False))

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities, given the available clients."""
        is_available = history.available.astype(np.float64)
        share: FloatArray = is_available * min(1.0, self.size / max(1.0, float(is_available.sum())))
        return share
