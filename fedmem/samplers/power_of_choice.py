"""The clients with the highest loss among a few candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.sampler import History
from fedmem.errors import ComponentError
from fedmem.samplers._picking import pick_highest, pick_weighted, with_rows


@dataclass(frozen=True, kw_only=True)
class PowerOfChoice:
    """d candidates are drawn by their rows; the K of them with the highest last loss take part.

    Candidates come one after the other, without replacement, with weights n_k. The loss is the one that a client
    reported when it last trained: the variant rpow-d of the paper, which costs no extra message. A client that has not
    trained yet counts as infinitely bad, so that it comes first; ties go by lot.

    Fields

    - `size`: clients in every cohort, K.
    - `candidates`: clients that are drawn to choose from, d; with d equal to K there is no choice.

    Guarantees:

    - sorted, distinct, always exactly `size` clients, never one without rows;
    - independent of the round; inclusion probabilities have no closed form.

    Errors: `ComponentError` if `candidates` is below `size`, or more than the clients that have rows.

    >>> from dataclasses import replace
    >>> history = replace(History.start([9] * 4), last_loss=np.array([0.2, 0.9, 0.5, 0.1]))
    >>> PowerOfChoice(size=2, candidates=4).cohort(5, history, np.random.default_rng(0)).tolist()
    [1, 2]

    Reference: Cho, Wang and Joshi (2022), towards understanding biased client selection in federated learning.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)
    needs: ClassVar[tuple[str, ...]] = ("last_loss",)

    size: Annotated[int, annotated_types.Ge(1)] = 10
    candidates: Annotated[int, annotated_types.Ge(1)] = 20

    def __post_init__(self) -> None:
        if self.candidates < self.size:
            raise ComponentError(
                "candidates",
                f"{self.size} clients cannot be chosen from {self.candidates} candidates; use at least {self.size}, "
                f"or lower size to at most {self.candidates}",
            )

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        clients = with_rows(history, self.candidates, "candidates", "choice")
        candidates = clients[pick_weighted(history.sizes[clients], self.candidates, rng)]
        return candidates[pick_highest(history.last_loss[candidates], self.size, rng)]
