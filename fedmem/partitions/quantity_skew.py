"""Quantity skew: clients hold unequally many rows, with the labels of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Dataset
from fedmem.partitions._sizes import apportion, require, split


@dataclass(frozen=True, kw_only=True)
class QuantitySkew:
    """Client k gets m + q_k (n - N m) of n rows at random. Here m is `min_rows`, and the shares q add up to 1.

    With `law: dirichlet`, q ~ Dirichlet(alpha, ..., alpha): the smaller alpha, the stronger the skew.

    With `law: power`, the client that is i-th of a random order has q proportional to i^-alpha. The larger alpha, the
    stronger the skew. The sizes are always the same, and only their assignment to clients is drawn.

    Fields

    - `law`: how the sizes are made.
    - `alpha`: concentration of the Dirichlet, or exponent of the power law.
    - `min_rows`: rows that every client gets before the rest is shared out.

    Guarantees:

    - disjoint, sorted arrays that cover `rows` exactly, each of at least `min_rows`;
    - sizes do not depend on labels: a client's labels have the distribution of the whole in expectation;
    - clients are exchangeable: each expects 1/N of all rows.

    Errors: `ComponentError` if there are fewer rows than `min_rows` for each client.

    >>> from fedmem.datasets.synthetic import Synthetic
    >>> data = Synthetic(rows=1000).load(np.random.default_rng(0))
    >>> skew = QuantitySkew(law="power", alpha=1.0, min_rows=1)
    >>> sorted(len(part) for part in skew.assign(data, np.arange(1000), 4, np.random.default_rng(0)))
    [121, 160, 240, 479]

    Reference: Li, Diao, Chen and He (2022), Federated Learning on Non-IID Data Silos: An Experimental Study.
    """

    law: Literal["dirichlet", "power"] = "dirichlet"
    alpha: Annotated[float, annotated_types.Gt(0)] = 0.5
    min_rows: Annotated[int, annotated_types.Ge(1)] = 10

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        require(len(rows), num_clients, self.min_rows)
        # Who has which size is drawn last: rounding follows the order of the shares and must favour nobody.
        sizes = rng.permutation(apportion(self._shares(num_clients, rng), len(rows), self.min_rows))
        return split(rng.permutation(rows), sizes)

    def _shares(self, num_clients: int, rng: np.random.Generator) -> FloatArray:
        """(N,) shares, not normalised."""
        if self.law == "dirichlet":
            return rng.dirichlet(np.full(num_clients, self.alpha))
        shares: FloatArray = np.arange(1, num_clients + 1, dtype=np.float64) ** -self.alpha
        return shares
