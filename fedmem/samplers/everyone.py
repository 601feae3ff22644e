"""Full participation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History, Law


@dataclass(frozen=True, kw_only=True)
class Everyone:
    """All N clients take part in every round; nothing is drawn.

    Guarantees:

    - sorted and complete;
    - independent of `rng`.

    >>> history = History.start([1] * 3)
    >>> Everyone().cohort(1, history, np.random.default_rng(0)).tolist()
    [0, 1, 2]
    """

    reads: ClassVar[tuple[str, ...]] = ()
    law: ClassVar[Law] = "everyone"
    displaces_nobody: ClassVar[bool] = True

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        return np.arange(history.num_clients)

    def min_separation(self, num_clients: int) -> int:
        """No round without everyone."""
        return 1

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities."""
        return np.broadcast_to(np.float64(1), history.num_clients)
