"""Many small arrays of whole numbers as one: what each of a hundred thousand clients holds, without as many objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Ragged(Sequence[NDArray[np.int64]]):
    """N arrays that lie end to end: part k is `rows[starts[k] : starts[k + 1]]`, a view that cannot be written to.

    `rows` (n,) int64, `starts` (N + 1,) int64 from 0 to n, never falling. A part costs nothing until it is asked for,
    whatever N is.

    >>> parts = Ragged.of([[3, 1], [], [2]])
    >>> len(parts), parts[0].tolist(), parts[-1].tolist(), parts.sizes.tolist()
    (3, [3, 1], [2], [2, 0, 1])
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.starts[0] == 0, "the first part begins with the first row"
        assert self.starts[-1] == len(self.rows), "the last part ends with the last row"
        for name in ("rows", "starts"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @staticmethod
    def of(parts: Sequence[Sequence[int] | NDArray[np.int64]]) -> Ragged:
        """Any sequence of arrays; a `Ragged` is returned unchanged."""
        if isinstance(parts, Ragged):
            return parts
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        return Ragged.split(np.concatenate([np.empty(0, dtype=np.int64), *parts]).astype(np.int64, copy=False), sizes)

    @staticmethod
    def split(rows: NDArray[np.int64], sizes: NDArray[Any]) -> Ragged:
        """Consecutive parts of these sizes, which add up to the number of rows."""
        return Ragged(rows=rows, starts=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))

    @staticmethod
    def group_by_owner(rows: NDArray[np.int64], owner: NDArray[Any], count: int) -> Ragged:
        """Rows by owner, 0 .. `count` - 1, each part sorted.

        >>> [part.tolist() for part in Ragged.group_by_owner(np.array([7, 5, 9]), np.array([1, 1, 0]), 3)]
        [[9], [5, 7], []]
        """
        # Sorting what is sorted already is nearly free, and then owners alone are left to sort by.
        order = np.argsort(rows, kind="stable")
        order = order[np.argsort(owner[order], kind="stable")]
        return Ragged.split(rows[order], np.bincount(owner, minlength=count))

    def sort_parts(self) -> Ragged:
        """The same parts, each sorted.

        >>> Ragged.of([[3, 1], [2]]).sort_parts().rows.tolist()
        [1, 3, 2]
        """
        rows = self.rows.copy()
        for start, end in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            rows[start:end].sort()
        return Ragged(rows=rows, starts=self.starts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N,) rows of each part."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int64]: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[NDArray[np.int64], ...]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.int64] | tuple[NDArray[np.int64], ...]:
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(len(self))))
        count = len(self.starts) - 1
        if not -count <= index < count:
            raise IndexError(f"part {index} of {count}")
        index %= count
        return self.rows[self.starts[index] : self.starts[index + 1]]
