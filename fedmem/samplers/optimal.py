"""Clients decide for themselves, with probabilities that keep the variance of the aggregate least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class Optimal:
    """Independent inclusion with p_k = min(1, c u_k), where u_k = n_k ‖last update of k‖ and c makes Σ p_k = m.

    With weights 1 / p_k these probabilities give the aggregate the least variance of all with an expected cohort of m.
    A client whose norm is not known yet has the mean of those that are; before any is, u_k is n_k. In the paper norms
    are those of this round, which costs every client its training; here they are those that were last seen.

    Fields

    - `expected`: expected number of clients in a cohort, m.

    Guarantees:

    - sorted and distinct, possibly empty;
    - Σ p_k is m exactly: where fewer than m clients have u_k above 0, the rest is shared equally by the others;
    - inclusion probabilities are exact given the history; the round does not matter.

    Errors: `ComponentError` if `expected` exceeds the number of clients.

    >>> from dataclasses import replace
    >>> history = replace(History.start([10] * 4), last_norm=np.array([1.0, 1.0, 2.0, np.nan]))
    >>> Optimal(expected=1.0).probabilities(2, history).round(3).tolist()
    [0.188, 0.188, 0.375, 0.25]

    Reference: Chen, Horváth and Richtárik (2022), optimal client sampling for federated learning.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)
    needs: ClassVar[tuple[str, ...]] = ("last_norm",)

    expected: Annotated[float, annotated_types.Gt(0)] = 10.0

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        if self.expected > history.num_clients:
            raise ComponentError(
                "sampler.expected",
                f"a cohort of {self.expected:g} cannot be expected of {history.num_clients} clients; "
                f"use at most {history.num_clients}, or raise clients",
            )
        return np.flatnonzero(rng.random(history.num_clients) < self.probabilities(round_number, history))

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities."""
        norms = history.last_norm
        is_finite = np.isfinite(norms)
        norms = np.where(is_finite, norms, norms[is_finite].mean() if is_finite.any() else 1.0)
        weights: FloatArray = norms * history.sizes
        clients = np.flatnonzero(weights > 0)
        if len(clients) < self.expected:
            rest = (self.expected - len(clients)) / max(1, len(weights) - len(clients))
            return np.where(weights > 0, 1.0, rest)
        probabilities = np.zeros(len(weights))
        probabilities[clients] = _cap_probabilities(weights[clients], self.expected)
        return probabilities


def _cap_probabilities(weights: FloatArray, total: float) -> FloatArray:
    """min(1, c w) that sum to `total`, which is at most their number, for positive weights."""
    ascending = np.sort(weights)
    sums_below = np.cumsum(ascending)
    # If all but the `count` smallest are certain, those share what is left; the largest of them must not exceed 1.
    budget = total - np.arange(len(weights) - 1, -1, -1)
    count = np.flatnonzero((budget > 0) & (budget * ascending <= sums_below))[-1]
    probabilities: FloatArray = np.minimum(1.0, weights * (budget[count] / sums_below[count]))
    return probabilities
