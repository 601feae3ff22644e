"""One client of each of K clusters of equal mass, by rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History
from fedmem.samplers._picking import with_rows


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """Clients in descending order of their rows are cut into K clusters of n / K rows; one client of each is drawn.

    Within its cluster a client is drawn in proportion to the rows that it has there. A client that lies across a border
    is in two clusters, and one that is larger than a cluster fills some alone. So client k is drawn K n_k / n times in
    expectation, as by K draws with replacement (MD sampling), but with less variance. A client that is drawn twice
    participates once, so that it is in the cohort a little less often than that. `probabilities` are exact, for weights
    that make up for it.

    Fields

    - `size`: clusters, K, and clients in a cohort at most.

    Guarantees:

    - sorted and distinct, between 1 and `size` clients, never one without rows;
    - inclusion probabilities are exact: the borders are whole numbers;
    - two draws of one client are the only reason for fewer than `size`; independent of the round.

    Errors: `ComponentError` if fewer than `size` clients have rows.

    >>> history = History.start([10, 10, 40, 20])
    >>> Clustered(size=2).cohort(1, history, np.random.default_rng(0)).tolist()
    [0, 2]
    >>> Clustered(size=2).probabilities(1, history).tolist()
    [0.25, 0.25, 1.0, 0.5]

    Reference: Fraboni, Vidal, Kameni and Lorenzi (2021), clustered sampling (algorithm 1).
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)

    size: Annotated[int, annotated_types.Ge(1)] = 10

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        with_rows(history, self.size)
        order, ends, width = self._laid_out(history)
        marks = np.arange(self.size) * width + rng.integers(width, size=self.size)
        return np.unique(order[np.searchsorted(ends, marks, side="right")])

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities."""
        order, ends, width = self._laid_out(history)
        starts = np.concatenate([[0], ends[:-1]])
        first, last = starts // width, np.maximum(ends - 1, starts) // width
        miss_probability = 1 - (np.minimum(ends, (first + 1) * width) - starts) / width
        miss_probability = np.where(
            last > first, miss_probability * (1 - (ends - last * width) / width), miss_probability
        )
        probabilities = np.empty(history.num_clients)
        # A client that has a cluster between its first and its last one is the only client in it.
        probabilities[order] = np.where(last - first > 1, 1.0, 1 - miss_probability)
        return probabilities

    def _laid_out(self, history: History) -> tuple[IntArray, IntArray, int]:
        """Clients by descending rows, where each ends if a row is `size` long, and how long a cluster is then."""
        order = np.argsort(-history.sizes, kind="stable")
        return order, np.cumsum(history.sizes[order] * self.size), int(history.sizes.sum())
