"""Odd and even clients take turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.sampler import History


@dataclass(frozen=True, kw_only=True)
class OddEven:
    """Clients with even numbers in odd rounds, the others in even rounds.

    Fields

    - `all_at_once`: all clients in every round instead.

    >>> [OddEven().cohort(r, History.start([9] * 5), np.random.default_rng(0)).tolist() for r in (1, 2)]
    [[0, 2, 4], [1, 3]]
    """

    reads: ClassVar[tuple[str, ...]] = ()

    all_at_once: bool = False

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        clients = np.arange(history.num_clients)
        return clients if self.all_at_once else clients[(clients + round_number) % 2 == 1]
