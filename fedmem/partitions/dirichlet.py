"""Label skew: every class is split over the clients by its own Dirichlet draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.contracts.ragged import Ragged
from fedmem.errors import ComponentError
from fedmem.partitions._sizes import require

_ATTEMPTS = 1000

_DRAWN = 2 * 10**8
"""Rows that are dealt out at most before the draw is given up: with millions of rows, some seconds instead of hours."""


@dataclass(frozen=True, kw_only=True)
class Dirichlet:
    """For each class c, client shares p_c ~ Dirichlet(alpha, ..., alpha), independent across classes.

    Client k gets the share p_ck of the rows of class c, picked at random. Small alpha gives each class to a few
    clients; large alpha approaches equal shares of every class. The whole draw is repeated until every client has
    `min_rows` rows, at most 1000 times (less often beyond 200 000 rows). Small alpha with large `min_rows` is therefore
    a conditioned Dirichlet.

    Fields

    - `alpha`: concentration of the Dirichlet; the smaller, the stronger the skew.
    - `min_rows`: rows that every client must get.

    Guarantees:

    - disjoint, sorted arrays that cover `rows` exactly;
    - clients are exchangeable and so are classes: each client expects 1/N of every class. Boundaries are rounded to the
      nearest row, since rounding them down would favour the last client.

    Errors: `ComponentError` if no draw gives every client `min_rows` rows.

    >>> from fedmem.datasets.synthetic import Synthetic
    >>> data = Synthetic(rows=600).load(np.random.default_rng(0))
    >>> parts = Dirichlet(alpha=0.5).assign(data, np.arange(600), 5, np.random.default_rng(0))
    >>> sum(len(part) for part in parts), min(len(part) for part in parts) >= 10
    (600, True)

    Reference: Hsu, Qi and Brown (2019), Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification; by class as in Yurochkin et al. (2019).
    """

    alpha: Annotated[float, annotated_types.Gt(0)] = 0.5
    min_rows: Annotated[int, annotated_types.Ge(1)] = 10

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        require(len(rows), num_clients, self.min_rows)
        labels = data.train.labels[rows]
        smallest, attempts = 0, max(1, min(_ATTEMPTS, _DRAWN // len(rows)))
        for _ in range(attempts):
            owner = self._owners(labels, num_clients, rng)
            fewest = int(np.bincount(owner, minlength=num_clients).min())
            if fewest >= self.min_rows:
                return Ragged.group_by_owner(rows, owner, num_clients)
            smallest = max(smallest, fewest)
        raise ComponentError(
            "partition",
            f"none of {attempts} draws of alpha {self.alpha:g} gave each of {num_clients} clients {self.min_rows} of "
            f"{len(rows)} rows. The best left a client with {smallest}; raise alpha or lower clients"
            + (f", or lower min_rows to {smallest}" if smallest else ""),
        )

    def _owners(self, labels: IntArray, num_clients: int, rng: np.random.Generator) -> IntArray:
        """One draw: the client of each row."""
        owner = np.empty(len(labels), dtype=np.int64)
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(num_clients, self.alpha))
            bounds = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            sizes = np.diff(bounds, prepend=0, append=len(members))
            owner[members] = np.repeat(np.arange(num_clients), sizes)
        return owner
