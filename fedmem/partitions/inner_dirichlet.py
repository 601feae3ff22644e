"""Inner Dirichlet: sizes first, then for each client its own mix of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Dataset
from fedmem.contracts.ragged import Ragged
from fedmem.partitions._sizes import apportion, require


@dataclass(frozen=True, kw_only=True)
class InnerDirichlet:
    """Client k has n_k rows whose labels follow p_k ~ Dirichlet(alpha, ..., alpha), drawn without replacement.

    Each row of a client is a label drawn from p_k, then a random free row of that label. All clients draw together.
    Where more rows of a class are wanted than are free, chance decides which clients get them. The others draw again
    from the classes that are left, in proportion to their own p_k. A client whose p_k has nothing left takes any free
    row. All rows are given, so that the clients together must have the labels of the whole. For small alpha or an
    unbalanced data set the mixes are less extreme than p_k.

    Fields

    - `alpha`: concentration of the Dirichlet; the smaller, the fewer labels a client has.
    - `sigma`: sizes are proportional to exp(sigma z), z standard normal, beyond `min_rows`; 0 for equal sizes.
    - `min_rows`: rows that every client must get.

    Guarantees:

    - disjoint, sorted arrays that cover `rows` exactly, each of at least `min_rows`; with sigma 0 sizes differ by one;
    - sizes do not depend on labels;
    - clients are exchangeable, no client is the last to choose: each expects 1/N of every class.

    Errors: `ComponentError` if there are fewer rows than `min_rows` for each client.

    >>> from fedmem.datasets.synthetic import Synthetic
    >>> data = Synthetic(rows=600).load(np.random.default_rng(0))
    >>> [len(part) for part in InnerDirichlet(alpha=0.1).assign(data, np.arange(600), 5, np.random.default_rng(0))]
    [120, 120, 120, 120, 120]

    Reference: Acar, Zhao, Matas, Mattina, Whatmough and Saligrama (2021), Federated Learning Based on Dynamic
    Regularization.
    """

    alpha: Annotated[float, annotated_types.Gt(0)] = 0.5
    sigma: Annotated[float, annotated_types.Ge(0)] = 0.0
    min_rows: Annotated[int, annotated_types.Ge(1)] = 10

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        require(len(rows), num_clients, self.min_rows)
        heights = rng.standard_normal(num_clients)
        weights = np.exp(self.sigma * (heights - heights.max()))
        # Rounding follows the order of the clients, so the order is drawn: no client is always the one that is cut.
        sizes = rng.permutation(apportion(weights, len(rows), self.min_rows))
        labels = data.train.labels[rows]
        classes, available = np.unique(labels, return_counts=True)
        mixes = rng.dirichlet(np.full(len(classes), self.alpha), size=num_clients)
        counts = self._counts(mixes, sizes, available, rng)
        owner = np.empty(len(rows), dtype=np.int64)
        for label, column in zip(classes, counts.T, strict=True):
            owner[rng.permutation(np.flatnonzero(labels == label))] = np.repeat(np.arange(num_clients), column)
        return Ragged.group_by_owner(rows, owner, num_clients)

    @staticmethod
    def _counts(mixes: FloatArray, sizes: IntArray, available: IntArray, rng: np.random.Generator) -> IntArray:
        """(N, C) rows of each class that each client gets. In every pass a class runs out or all are served."""
        counts = np.zeros(mixes.shape, dtype=np.int64)
        while (missing := sizes - counts.sum(axis=1)).any():
            remaining = available - counts.sum(axis=0)
            odds = np.where(remaining > 0, mixes, 0.0)
            # A tiny alpha gives shares that are zero in floating point.
            odds[odds.sum(axis=1) == 0] = remaining
            draws = rng.multinomial(missing, odds / odds.sum(axis=1, keepdims=True))
            for label in np.flatnonzero(draws.sum(axis=0) > remaining):
                draws[:, label] = rng.multivariate_hypergeometric(draws[:, label], remaining[label])
            counts += draws
        return counts
