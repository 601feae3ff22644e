"""Shards: rows sorted by label, cut into equal pieces, a few random pieces for each client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.contracts.ragged import Ragged
from fedmem.partitions._sizes import even_sizes, require


@dataclass(frozen=True, kw_only=True)
class Shards:
    """N s shards of rows sorted by label, s of them, picked at random, for each of N clients.

    The n rows are sorted by label, rows of one label in random order, and cut into N s consecutive shards. Where N s
    does not divide n, the first n mod N s shards have one row more, so that none is lost. A shard that is no longer
    than the smallest class has at most two labels, and a client then at most 2s.

    Fields

    - `per_client`: shards of each client, s; with 1 a client has one label or two, with many all of them.

    Guarantees:

    - disjoint, sorted arrays that cover `rows` exactly; sizes differ by at most s rows;
    - clients are exchangeable: each expects 1/N of every class.

    Errors: `ComponentError` if there are fewer rows than shards.

    >>> from fedmem.datasets.synthetic import Synthetic
    >>> data = Synthetic(rows=603, classes=10).load(np.random.default_rng(0))
    >>> parts = Shards(per_client=2).assign(data, np.arange(603), 20, np.random.default_rng(0))
    >>> sorted({len(part) for part in parts}), max(len(set(data.train.labels[part])) for part in parts) <= 4
    ([30, 31], True)

    Reference: McMahan, Moore, Ramage, Hampson and Agüera y Arcas (2017), Communication-Efficient Learning of Deep
    Networks from Decentralized Data.
    """

    per_client: Annotated[int, annotated_types.Ge(1)] = 2

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        require(len(rows), num_clients, self.per_client, "per_client")
        mixed = rng.permutation(rows)
        count = num_clients * self.per_client
        by_label = mixed[np.argsort(data.train.labels[mixed], kind="stable")]
        owner = np.empty(count, dtype=np.int64)
        owner[rng.permutation(count)] = np.repeat(np.arange(num_clients), self.per_client)
        return Ragged.group_by_owner(by_label, np.repeat(owner, even_sizes(len(rows), count)), num_clients)
