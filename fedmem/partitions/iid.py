"""Rows dealt out at random in equal shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.partitions._sizes import even_sizes, require, split


@dataclass(frozen=True, kw_only=True)
class IID:
    """A uniformly random partition whose sizes differ by one row at most.

    Fields

    - `min_rows`: rows that every client must get.

    Guarantees:

    - disjoint, sorted arrays that cover `rows` exactly;
    - a client's labels have the distribution of the whole in expectation.

    Errors: `ComponentError` if there are fewer rows than `min_rows` for each client.

    >>> from fedmem.datasets.synthetic import Synthetic
    >>> data = Synthetic(rows=10).load(np.random.default_rng(0))
    >>> [len(part) for part in IID().assign(data, np.arange(10), 4, np.random.default_rng(0))]
    [3, 3, 2, 2]
    """

    min_rows: Annotated[int, annotated_types.Ge(1)] = 1

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        require(len(rows), num_clients, self.min_rows)
        return split(rng.permutation(rows), even_sizes(len(rows), num_clients))
