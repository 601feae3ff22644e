"""Rows of one kind at clients of their own: by the value of a column, such as random labels at some clients alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.data import Dataset, Partition
from fedmem.errors import ComponentError
from fedmem.partitions.iid import IID
from fedmem.wording import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Separated:
    """Rows whose `column` has `value` are at the last clients alone, and all others at the clients before them.

    Of N clients, round(N q) hold rows with the value, at least 1 and at most N − 1. Here q is the share of such rows.
    So the sizes of all clients are about equal. `base` deals the rows of each side to the clients of that side.

    Real audit examples, controls and replacement rows of a client are its own rows. So an example and its replacement
    are of one side, which is needed to compare them.

    Fields

    - `column`: a column of the data set, or a sensitive attribute.
    - `value`: its value, as text.
    - `base`: the partition on each side.

    Guarantees:

    - disjoint, sorted arrays that cover `rows` as far as `base` does;
    - rows without the value are dealt before those with it, each by the rule of `base`.

    Errors: `ComponentError` for an unknown column or value, where all rows have the value, for fewer than 2 clients,
    and those of `base`.

    >>> from fedmem.datasets.randomised import Randomised
    >>> data = Randomised(labels=0.25).load(np.random.default_rng(0))
    >>> parts = Separated().assign(data, np.arange(1500), 8, np.random.default_rng(0))
    >>> [bool((data.columns["random label"][rows] == "yes").all()) for rows in parts]
    [False, False, False, False, False, False, True, True]
    """

    by_owner: ClassVar[bool] = True

    column: str = "random label"
    value: str = "yes"
    base: Partition = field(default_factory=IID)

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        if num_clients < 2:
            raise ComponentError("clients", f"separated needs clients on both sides, but clients is {num_clients}")
        if len(rows) < num_clients:
            raise ComponentError("partition", f"{num_clients} clients, but only {len(rows)} rows; lower clients")
        has_value = self._has_value(data, rows)
        num_with = min(max(1, round(num_clients * has_value.mean())), num_clients - 1)
        parts: list[IntArray] = []
        for side, clients in ((rows[~has_value], num_clients - num_with), (rows[has_value], num_with)):
            try:
                parts += self.base.assign(data, side, clients, rng)
            except ComponentError as error:
                # The base cannot know that it is nested.
                raise ComponentError(error.path.replace("partition", "partition.base", 1), error.message) from error
        return parts

    def _has_value(self, data: Dataset, rows: IntArray) -> BoolArray:
        """(n,) whether each of these rows has the value."""
        columns = {**data.columns, **data.sensitive}
        if self.column not in columns:
            names = ", ".join(columns) or "none: choose another data set, such as randomised"
            raise ComponentError(
                "partition.column",
                f"the data have no column {self.column!r}{did_you_mean(self.column, columns)}; columns: {names}",
            )
        texts = np.asarray(columns[self.column])[rows].astype(str)
        has_value: BoolArray = texts == self.value
        if has_value.all() or not has_value.any():
            values = np.unique(texts)
            more = ", …" if len(values) > 10 else ""
            raise ComponentError(
                "partition.value",
                f"{'every' if has_value.all() else 'no'} row has {self.value!r} in the column {self.column!r}, so no "
                f"rows can be separated{did_you_mean(self.value, values)}; values: {', '.join(values[:10])}{more}",
            )
        return has_value
