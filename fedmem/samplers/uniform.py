"""A cohort of fixed size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History, Law


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every set of `size` clients is equally likely; each client takes part with probability `size` / N.

    Fields

    - `size`: clients in every cohort, K.

    Guarantees:

    - sorted, distinct, always exactly `size` clients;
    - independent of the round and of history.

    Errors: `ComponentError` if `size` exceeds the number of clients.

    >>> history = History.start([1] * 5)
    >>> len(Uniform(size=3).cohort(1, history, np.random.default_rng(0)))
    3
    """

    reads: ClassVar[tuple[str, ...]] = ()
    law: ClassVar[Law] = "fixed_size"

    size: Annotated[int, annotated_types.Ge(1)] = 10

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        history.require(self.size)
        return np.sort(rng.choice(history.num_clients, size=self.size, replace=False))

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities."""
        return np.broadcast_to(np.float64(self.size / history.num_clients), history.num_clients)
