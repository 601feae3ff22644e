"""Canaries for tables: rows whose columns are drawn independently, with a random label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.errors import ComponentError
from fedmem.injections._patches import FEWEST_BINARY
from fedmem.injections._placement import PlacedInjection
from fedmem.modalities.tables import Tables

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class RandomRow(PlacedInjection):
    """A number is uniform between the smallest and the largest of its column, a category uniform over its values.

    Every column is drawn independently and the label uniformly over the classes. So nothing about a row can be learnt
    from others, though every single value is ordinary. Columns are the `blocks` of the data set; inputs of one
    dimension without blocks are all numbers. References are rows without a label: a canary is ranked under its own.

    Guarantees:

    - canaries and references come from one generator and are independent;
    - every row is one that the table could hold: one-hot blocks hold a single one;
    - takes no real row; ids are negative.

    Errors: `ComponentError` where inputs are images, or so few rows are possible (below 2^32) that a reference might
    be the canary.

    >>> from fedmem.contracts.data import Dataset, Examples
    >>> rows = np.array([[0.0, 1.0, 0.0], [5.0, 0.0, 1.0]], np.float32)
    >>> data = Examples(inputs=rows, targets=np.arange(2), ids=np.arange(2))
    >>> space = Space.of(Dataset(train=data, test=data, num_classes=2, modality=Tables(blocks=(1, 2))))
    >>> RandomRow().references(3, space, np.random.default_rng(0))[:, 1:].sum(1).tolist()
    [1.0, 1.0, 1.0]

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer, carried over to tables.
    """

    role: ClassVar[Role] = "canary"

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Canaries are made, not taken."""
        return 0

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` canaries for each owner, in order of client."""
        return self._plan_canaries(self.references, clients, space, rng)

    def references(self, count: int, space: Space, rng: np.random.Generator) -> NDArray[np.float32]:
        """(count, width) fresh rows."""
        if not isinstance(space.modality, Tables):
            raise ComponentError(
                "injections",
                f"random_row draws the columns of a table, but inputs have shape {space.shape}; use random_pattern",
            )
        blocks = space.modality.columns(space.shape[0])
        columns = np.cumsum([0, *blocks])[:-1]
        numbers = [column for column, width in zip(columns, blocks, strict=True) if width == 1]
        constant = np.array_equal(space.low[numbers], space.high[numbers])
        categories = math.prod(blocks)
        if constant and categories < 2**FEWEST_BINARY:
            raise ComponentError(
                "injections",
                f"random_row can make only {categories} different rows of this table, fewer than 2^{FEWEST_BINARY}, so "
                "a reference might be the canary; use mislabelled or typical",
            )
        rows = np.zeros((count, *space.shape), dtype=np.float32)
        for column, width in zip(columns, blocks, strict=True):
            if width == 1:
                rows[:, column] = rng.uniform(space.low[column], space.high[column], size=count)
            else:
                rows[np.arange(count), column + rng.integers(width, size=count)] = 1
        return rows
