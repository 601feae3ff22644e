"""Selection bias towards clients that hold atypical examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.sampler import History


@dataclass(frozen=True, kw_only=True)
class Atypical:
    """Clients are drawn one after another, without replacement, with weights exp(`beta` z_k).

    z_k = (s_k - mean of s) / (standard deviation of s), where s_k counts the atypical *copies* of client k. These are
    the copies of its atypical audit examples whether their coins say in or out, so that being picked reveals nothing
    about a coin. Standardised, `beta` means the same at any number of copies: one standard deviation more multiplies
    the weight by e^beta. The draw adds Gumbel noise to beta z_k and takes the K largest sums, which is the same thing.

    Fields

    - `size`: clients in every cohort, K.
    - `beta`: strength of the preference; 0 is uniform.

    Guarantees:

    - sorted, distinct, always exactly `size` clients;
    - the more copies a client has, the more often it participates. At `beta` 0, or with equal numbers of copies, all
      sets are equally likely, and the cohorts do not depend on the copies at all;
    - the first client drawn is client k with probability softmax(beta z)_k; no client is excluded;
    - independent of the round.

    Errors: `ComponentError` if `size` exceeds the number of clients.

    >>> history = History.start([9] * 4, atypical=[0, 0, 0, 5])
    >>> Atypical(size=1, beta=50.0).cohort(1, history, np.random.default_rng(0)).tolist()
    [3]

    Reference: Plackett (1975) for the law of the draw; Kool, van Hoof and Welling (2019) for the Gumbel form.
    """

    reads: ClassVar[tuple[str, ...]] = ("atypical",)

    size: Annotated[int, annotated_types.Ge(1)] = 10
    beta: Annotated[float, annotated_types.Ge(0)] = 1.0

    @property
    def prefers_atypical(self) -> bool:
        """Whether copies matter."""
        return self.beta > 0

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        history.require(self.size)
        deviations = history.atypical - history.atypical.mean()
        spread = history.atypical.std()
        keys = rng.gumbel(size=history.num_clients)
        # Equal numbers have no spread, and a rest by rounding must not prefer any client.
        if np.ptp(history.atypical):
            keys = keys + self.beta * deviations / spread
        # The K largest in any order: sorting all clients would take longer than training the cohort.
        return np.sort(np.argpartition(keys, -self.size)[-self.size :])
