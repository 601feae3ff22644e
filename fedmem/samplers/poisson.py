"""Every client decides for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History, Law


@dataclass(frozen=True, kw_only=True)
class Poisson:
    """Each client takes part with probability `rate`, independently of the others and of other rounds.

    The cohort size is binomial and may be 0. Such a round leaves the model as it is, but for the noise of strategies
    that add it in every round. This is the sampling that accounting of amplified differential privacy assumes.

    Fields

    - `rate`: probability that a client takes part in a round.

    Guarantees:

    - sorted and distinct, possibly empty;
    - independent of the round and of history.

    >>> history = History.start([1] * 4)
    >>> Poisson(rate=1.0).cohort(1, history, np.random.default_rng(0)).tolist()
    [0, 1, 2, 3]
    """

    reads: ClassVar[tuple[str, ...]] = ()
    law: ClassVar[Law] = "poisson"
    displaces_nobody: ClassVar[bool] = True

    rate: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.5

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        return np.flatnonzero(rng.random(history.num_clients) < self.rate)

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities."""
        return np.broadcast_to(np.float64(self.rate), history.num_clients)
