"""The clients whose updates were largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History
from fedmem.samplers._picking import pick_highest, with_rows


@dataclass(frozen=True, kw_only=True)
class UpdateAware:
    """The K clients with the largest Euclidean norm of their last update.

    Clients that have not trained yet come first, and ties are broken at random. In the paper all clients compute their
    update and report its norm before some of them send it. Here the norm is that of the last update seen, so that no
    client trains in vain. The paper's best channel is left out, since there is no channel.

    Fields

    - `size`: clients in every cohort, K.

    Guarantees:

    - sorted, distinct, always exactly `size` clients, never one without rows;
    - only ties are drawn. Otherwise inclusion probabilities are 1 and 0, so that no weights can make up for them;
    - the round does not matter.

    Errors: `ComponentError` if fewer than `size` clients have rows.

    >>> from dataclasses import replace
    >>> history = replace(History.start([9] * 4), last_norm=np.array([0.2, 0.9, np.nan, 0.1]))
    >>> UpdateAware(size=2).cohort(5, history, np.random.default_rng(0)).tolist()
    [1, 2]

    Reference: Amiri, Gündüz, Kulkarni and Poor (2021), convergence of update aware device scheduling (BN2).
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)
    needs: ClassVar[tuple[str, ...]] = ("last_norm",)

    size: Annotated[int, annotated_types.Ge(1)] = 10

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        clients = with_rows(history, self.size)
        return clients[pick_highest(history.last_norm[clients], self.size, rng)]

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities: places that are left, shared by those that tie for them."""
        norms = np.where(np.isnan(history.last_norm), np.inf, history.last_norm)
        norms[history.sizes == 0] = -np.inf
        last = np.partition(norms, -self.size)[-self.size]
        is_higher, is_tie = norms > last, norms == last
        share: FloatArray = np.where(is_tie, (self.size - is_higher.sum()) / is_tie.sum(), is_higher)
        return share
