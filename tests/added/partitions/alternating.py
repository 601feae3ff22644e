"""Rows dealt out one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.partitions._sizes import require


@dataclass(frozen=True, kw_only=True)
class Alternating:
    """Client k gets rows k, k + N, k + 2 N and so on.

    Fields

    - `start`: the client that gets the first row.

    >>> from fedmem.datasets.synthetic import Synthetic
    >>> data = Synthetic(rows=10).load(np.random.default_rng(0))
    >>> [part.tolist() for part in Alternating().assign(data, np.arange(5), 2, np.random.default_rng(0))]
    [[0, 2, 4], [1, 3]]
    """

    start: Annotated[int, Ge(0)] = 0

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        require(len(rows), num_clients, 1, "")
        return [np.sort(rows[(client - self.start) % num_clients :: num_clients]) for client in range(num_clients)]
