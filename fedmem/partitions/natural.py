"""The owners that the data come with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.contracts.ragged import Ragged
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class Natural:
    """Client k holds the rows of the k-th natural owner, in increasing order of owner; nothing is drawn.

    Real audit examples, controls and replacement rows of a client are its own rows, drawn at random from them. The
    others are its base rows. `fedmem check` names a client that has too few. It also counts the rows of other owners
    that an injection takes where its owning client has none of a class.

    Guarantees:

    - disjoint, sorted arrays that cover `rows` exactly;
    - independent of `rng`.

    Errors: `ComponentError` if the data know no owners, or if `clients` is not the number of owners. `ComponentError`
    also if an owner lost all its rows to the test set and the population.

    >>> from fedmem.datasets.digits import Digits
    >>> data = Digits().load(np.random.default_rng(0))
    >>> len(Natural().assign(data, np.arange(1500), 14, np.random.default_rng(0)))
    14
    """

    by_owner: ClassVar[bool] = True

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        if data.natural is None:
            raise ComponentError(
                "partition.kind", "this data set knows no natural owners; choose another partition, such as dirichlet"
            )
        owners = np.unique(data.natural)
        if num_clients != len(owners):
            raise ComponentError(
                "clients",
                f"{num_clients} clients, but the natural partition of this data set has {len(owners)} owners; "
                f"write `clients: {len(owners)}`",
            )
        parts = Ragged.group_by_owner(rows, np.searchsorted(owners, data.natural[rows]), num_clients)
        empty = owners[parts.sizes == 0]
        if len(empty):
            raise ComponentError(
                "partition",
                f"of {len(owners)} natural owners {len(empty)} have no row left after test and "
                f"population (owner {empty[0]} first); lower population or dataset.test",
            )
        return parts
