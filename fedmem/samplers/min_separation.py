"""A minimum number of rounds between two participations of the same client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.sampler import History, Law
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class MinSeparation:
    """A client picked in round r can be picked again from round r + `separation` on.

    Every set of `size` of the clients that may participate again is equally likely. This is the participation that
    DP-FTRL and its successors assume, and what a server gets that lets a phone rest after a participation.

    Fields

    - `size`: clients in every cohort, K.
    - `separation`: rounds from one turn of a client to its next, at least; 1 is `uniform`.

    Guarantees:

    - sorted, distinct, always exactly `size` clients;
    - two participations of a client are at least `separation` rounds apart: at most ceil(T / `separation`) in T rounds;
    - with `size` times `separation` equal to N, each pass of `separation` rounds takes every client once.

    Errors: `ComponentError` if `size` times `separation` exceeds N: some round would find too few rested clients.

    >>> from dataclasses import replace
    >>> history = replace(History.start([1] * 4), last_round=np.array([2, 1, 2, 0]))
    >>> MinSeparation(size=2, separation=2).cohort(3, history, np.random.default_rng(0)).tolist()
    [1, 3]

    Reference: Kairouz et al. (2021), practical and private deep learning without sampling or shuffling.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    law: ClassVar[Law] = "spaced"

    size: Annotated[int, annotated_types.Ge(1)] = 10
    separation: Annotated[int, annotated_types.Ge(1)] = 2

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        min_clients, clients = self.size * self.separation, history.num_clients
        if min_clients > clients:
            raise ComponentError(
                "sampler.separation" if self.size <= clients else "sampler.size",
                f"{self.size} in each of {self.separation} rounds are {min_clients} different clients, but there are "
                f"{clients}. Lower size or separation until their product is at most {clients}, or raise clients",
            )
        return np.sort(
            rng.choice(np.flatnonzero(self._has_rested(round_number, history)), size=self.size, replace=False)
        )

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities: equal for all clients that may participate again, 0 for the others."""
        has_rested = self._has_rested(round_number, history)
        share: FloatArray = has_rested.astype(np.float64) * (self.size / max(1, int(has_rested.sum())))
        return share

    def min_separation(self, num_clients: int) -> int:
        """Rounds from one turn of a client to its next, at least."""
        return self.separation

    def _has_rested(self, round_number: int, history: History) -> BoolArray:
        """(N,) which clients may participate again."""
        has_rested: BoolArray = (history.last_round == 0) | (round_number - history.last_round >= self.separation)
        return has_rested
