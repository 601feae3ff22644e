"""A sensitive column of a table: its candidate values, their prior, the true ones, and rows with another value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables, column_slices, modal_row
from fedmem.seeding import stream

Rows = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class SensitiveColumn:
    """The knowledge of an attacker about a column: V candidate values, and rows that no client trains on.

    A category has all of its values as candidates. A number is cut into bins at quantiles of the public rows. The
    candidate of a bin is the median of the public rows in it. So no candidate depends on a row of a client.

    Attributes:
        part: The entries of the column.
        blanks: (width,) the entries of the column, and of columns that the attacker does not know.
        blocks: The entries of each column of the table.
        edges: (V − 1,) the upper ends of the bins of a number but the last, which belong to them; None for a category.
        public: The population and the test rows, in random order, those without a value left out.
    """

    part: slice
    blanks: BoolArray
    blocks: tuple[int, ...]
    edges: FloatArray | None
    public: Examples

    @classmethod
    def of(
        cls, federation: Federation, column: int, *, bins: int, without: tuple[int, ...] = (), rows: int = 5000
    ) -> SensitiveColumn:
        """The column of a federation, with at most so many public rows.

        Errors: `ComponentError` where there is no such column, or it has one value, or no row is public.
        """
        modality = federation.modality
        blocks = modality.columns(federation.store.inputs.shape[1]) if isinstance(modality, Tables) else ()
        for path, number in (("column", column), *(("without_columns", one) for one in without)):
            if number >= len(blocks):
                raise ComponentError(
                    path,
                    f"there is no column {number}; the table has {len(blocks)}, numbered from 0, and the label is none "
                    "of them. fedmem check lists them under decided. Sensitive columns of csv are among them only with "
                    "include_sensitive: true",
                )
        if column in without:
            raise ComponentError("without_columns", f"column {column} is the one that is inferred; take it out")
        parts = column_slices(blocks)
        blanks = np.zeros(sum(blocks), dtype=bool)
        for number in (column, *without):
            blanks[parts[number]] = True
        public = _public_rows(federation)
        cells = public.inputs[:, parts[column]]
        if blocks[column] > 1:
            edges, public = None, public.take(np.flatnonzero(is_one_hot(cells)))
        else:
            edges = bin_edges(cells[:rows, 0].astype(np.float64), bins)
        public = public.take(np.arange(min(rows, len(public))))
        if not len(public):
            raise ComponentError(
                "population",
                "attribute inference needs rows that no client trains on, and there are none; set population to 200 "
                "or more",
            )
        if edges is not None and not len(edges):
            raise ComponentError(
                "column", f"column {column} has one value in all public rows, so nothing is inferred; choose another"
            )
        return cls(part=parts[column], blanks=blanks, blocks=blocks, edges=edges, public=public)

    @property
    def count(self) -> int:
        """V."""
        return self.part.stop - self.part.start if self.edges is None else len(self.edges) + 1

    def values_of(self, inputs: Rows) -> IntArray:
        """(n,) the candidate that each row has; −1 where the entries of a category are no one-hot."""
        cells = inputs[:, self.part]
        if self.edges is not None:
            return np.asarray(np.searchsorted(self.edges, cells[:, 0].astype(np.float64)))
        return np.where(is_one_hot(cells), cells.argmax(axis=1), -1)

    @cached_property
    def prior(self) -> FloatArray:
        """(V,) the share of each candidate in the public rows, each counted once more than it occurs."""
        counts = np.bincount(self.values_of(self.public.inputs), minlength=self.count) + 1.0
        return np.asarray(counts / counts.sum())

    @cached_property
    def _cells(self) -> Rows:
        """(V, entries) what each candidate puts into the entries of the column."""
        if self.edges is None:
            return np.eye(self.count, dtype=np.float32)
        public, values = self.public.inputs[:, self.part], self.values_of(self.public.inputs)
        medians = [np.median(public[values == value]) for value in range(self.count)]
        return np.array(medians, dtype=np.float32)[:, None]

    @cached_property
    def _modal(self) -> Rows:
        modal: Rows = modal_row(self.public.inputs, self.blocks)[0]
        return modal

    def with_value(self, inputs: Rows, value: int) -> Rows:
        """(n, width) the rows with a candidate in all entries of the column; unknown columns have their modal cell."""
        changed: Rows = np.where(self.blanks, self._modal, inputs).astype(np.float32)
        changed[:, self.part] = self._cells[value]
        return changed

    def features(self, examples: Examples, num_classes: int) -> FloatArray:
        """(n, d) what the attacker knows of each row: its other known columns, and its label as a one-hot."""
        known = examples.inputs[:, ~self.blanks].astype(np.float64)
        return np.concatenate([known, np.eye(num_classes)[examples.targets]], axis=1)


def is_one_hot(cells: Rows) -> BoolArray:
    """(n,) whether the entries (n, k) of a category are a single 1 and otherwise 0.

    >>> is_one_hot(np.array([[0, 1], [0, 0], [0.5, 0.5]], np.float32)).tolist()
    [True, False, False]
    """
    return np.asarray(((cells == 1).sum(axis=1) == 1) & ((cells != 0).sum(axis=1) == 1))


def bin_edges(values: FloatArray, bins: int) -> FloatArray:
    """The upper ends of all bins but the last: quantiles of the values, or the values themselves if they are few.

    Each bin holds at least one of the values. Empty where all values are equal.

    >>> bin_edges(np.arange(8.0), 4).tolist(), bin_edges(np.array([0.0, 0, 0, 0, 0, 7]), 4).tolist()
    ([1.0, 3.0, 5.0], [0.0])
    """
    distinct = np.unique(values)
    if len(distinct) <= bins:
        return distinct[:-1]
    shares = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    edges = edges[edges < distinct[-1]]
    return edges if len(edges) else distinct[-2:-1]


def _public_rows(federation: Federation) -> Examples:
    """The population and the test rows, in random order; of two numbers of rows the larger has those of the smaller."""
    parts = federation.population, federation.test
    inputs, targets, ids = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("inputs", "targets", "ids")
    )
    order = stream(0, "public rows").permutation(len(inputs))
    return Examples(inputs=inputs[order], targets=targets[order], ids=ids[order])
