"""Clients with more rows are picked more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History
from fedmem.samplers._picking import with_rows


@dataclass(frozen=True, kw_only=True)
class BySize:
    """A cohort of K without replacement; client k participates with probability exactly K n_k / n.

    n_k are its rows and n those of all. Where K n_k / n reaches 1 the client always participates, and the other places
    are shared out among the others in the same way. The scheme is randomised systematic sampling (Goodman and Kish,
    1950). Clients lie end to end in random order, each as long as its rows. The clients under K evenly spaced marks
    with a random start are taken. Drawing one after the other with weights n_k would be simpler, but favours small
    clients.

    Fields

    - `size`: clients in every cohort, K.

    Guarantees:

    - sorted, distinct, always exactly `size` clients, never one without rows;
    - inclusion probabilities are exact: the marks are whole numbers;
    - equal rows give `uniform`; independent of the round.

    Errors: `ComponentError` if fewer than `size` clients have rows.

    >>> history = History.start([10, 10, 80, 0])
    >>> BySize(size=1).cohort(1, history, np.random.default_rng(0)).tolist()
    [2]
    >>> BySize(size=3).cohort(1, history, np.random.default_rng(0)).tolist()
    [0, 1, 2]

    Reference: Goodman and Kish (1950).
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)

    size: Annotated[int, annotated_types.Ge(1)] = 10

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        clients = with_rows(history, self.size)
        certain = _certain_clients(history.sizes, self.size)
        others = rng.permutation(np.setdiff1d(clients, certain, assume_unique=True) if len(certain) else clients)
        ends = np.cumsum(history.sizes[others])
        marks = self.size - len(certain)
        if not marks:
            return certain
        start = rng.integers(ends[-1])
        # Lengths times `marks` and spacing times n would be whole numbers; a length is above a mark if and only if it
        # is above the mark divided by `marks` and rounded down, so that nothing is rounded wrongly.
        picks = np.searchsorted(ends, (start + np.arange(marks) * ends[-1]) // marks, side="right")
        return np.sort(np.concatenate([certain, others[picks]]))

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities."""
        certain = _certain_clients(history.sizes, self.size)
        other_rows = int(history.sizes.sum() - history.sizes[certain].sum())
        probabilities = history.sizes.astype(np.float64) * ((self.size - len(certain)) / max(1, other_rows))
        probabilities[certain] = 1.0
        return probabilities


def _certain_clients(sizes: IntArray, places: int) -> IntArray:
    """The clients that are so large that each has a place for sure, sorted."""
    rows_left = int(sizes.sum())
    if places * int(sizes.max()) < rows_left:
        return np.empty(0, dtype=np.int64)
    largest = np.argpartition(sizes, -places)[-places:]
    descending = largest[np.argsort(-sizes[largest], kind="stable")]
    for count, client in enumerate(descending):
        if (places - count) * int(sizes[client]) < rows_left:
            return np.sort(descending[:count])
        rows_left -= int(sizes[client])
    return np.sort(descending)
