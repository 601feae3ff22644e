"""Deduplication: which of a client's own rows are duplicates of others, and are left out of its training."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.ragged import Ragged

Ints = NDArray[np.int64]

MAX_RESULTS = 4096
"""Lists of rows whose result is remembered at most."""


@dataclass(frozen=True, kw_only=True)
class Deduplication:
    """How a client looks for duplicates among its own rows.

    Attributes:
        by: `exact` for rows with equal inputs and targets, `near` for texts that share many n-grams of tokens.
        overlap: The Jaccard index of n-grams from which two texts are near duplicates.
    """

    by: Literal["exact", "near"]
    overlap: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The features of all rows of a store, by which duplicates are found among the rows of one client.

    Two rows are duplicates if their features have a Jaccard index, the share of shared ones in all of both, of at least
    `overlap`. `features[i]` are those of row i, each once, and at least one. With one feature for each row, duplicates
    are the rows with the same one.

    Guarantees:

    - of duplicates the first in the client's order is kept. A row is left out exactly if it is a duplicate of a kept
      row;
    - the result depends on the client's own rows alone, and keeps their order. At least one row is left of some.

    >>> codes = Duplicates(features=Ragged.of([[0], [1], [0], [2]]), overlap=1.0)
    >>> codes.keep_first(np.array([3, 0, 2, 1, 0])).tolist()
    [3, 0, 1]
    """

    features: Ragged
    overlap: float

    def keep_first(self, rows: Ints) -> Ints:
        """The rows of a client without duplicates of earlier ones."""
        key = rows.tobytes()
        kept = self._results.get(key)
        if kept is None:
            kept = rows[self._first_of_each(rows) if self._has_single_features else self._far_from_all_before(rows)]
            kept.flags.writeable = False
            self._results[key] = kept
            if len(self._results) > MAX_RESULTS:
                self._results.popitem(last=False)
        return kept

    @cached_property
    def _results(self) -> OrderedDict[bytes, Ints]:
        return OrderedDict()

    @cached_property
    def _has_single_features(self) -> bool:
        return bool((self.features.sizes == 1).all())

    def _first_of_each(self, rows: Ints) -> Ints:
        """The places of the first row with each feature."""
        _, first = np.unique(self.features.rows[self.features.starts[rows]], return_index=True)
        return np.sort(first)

    def _far_from_all_before(self, rows: Ints) -> Ints:
        """The places of rows that are no duplicate of a kept row before them."""
        from scipy.sparse import csr_array

        parts = [self.features[row] for row in rows.tolist()]
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        names, columns = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *parts]), return_inverse=True)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        has = csr_array((np.ones(len(columns), dtype=np.int64), columns, starts), shape=(len(rows), len(names)))
        shared = has @ has.T
        kept: list[int] = []
        is_left_out = np.zeros(len(rows), dtype=bool)
        for place in range(len(rows)):
            if not is_left_out[place]:
                kept.append(place)
                part = slice(shared.indptr[place], shared.indptr[place + 1])
                others, both = shared.indices[part], shared.data[part]
                # equal to an index that should be `overlap` but for rounding
                is_near = both >= self.overlap * (sizes[place] + sizes[others] - both) - 1e-9
                is_left_out[others[is_near]] = True
        return np.array(kept, dtype=np.int64)
