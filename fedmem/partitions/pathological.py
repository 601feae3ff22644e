"""Exactly k classes for every client, each class shared out evenly among those who hold it."""

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
from fedmem.partitions._sizes import even_sizes, require


@dataclass(frozen=True, kw_only=True)
class Pathological:
    """Every client holds rows of exactly k classes; every class has an owner.

    Clients choose in random order. Each chooses the k classes that have the fewest owners so far, ties at random. The
    numbers of owners differ by one at most. The rows of a class are dealt out at random and evenly among its owners.

    Fields

    - `classes`: classes of each client, k.

    Guarantees:

    - disjoint, sorted arrays that cover `rows` exactly; every client holds rows of k classes, no more and no fewer;
    - shares of one class differ by one row at most;
    - clients are exchangeable and so are classes: each client expects 1/N of every class.

    Errors: `ComponentError` if there are fewer than k classes, or if a class has fewer rows than owners.
    `ComponentError` also if N k is less than the number of classes, since nobody would hold one of them.

    >>> from fedmem.datasets.synthetic import Synthetic
    >>> data = Synthetic(rows=600, classes=10).load(np.random.default_rng(0))
    >>> parts = Pathological(classes=2).assign(data, np.arange(600), 20, np.random.default_rng(0))
    >>> {len(set(data.train.labels[part])) for part in parts}
    {2}

    Reference: the setting that McMahan et al. (2017) call pathological non-IID. The classes of a client are fixed as in
    Collins, Hassani, Mokhtari and Shakkottai (2021), Exploiting Shared Representations for Personalized Federated
    Learning.
    """

    classes: Annotated[int, annotated_types.Ge(1)] = 2

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        require(len(rows), num_clients, self.classes, "classes")
        labels = data.train.labels[rows]
        present = np.unique(labels)
        if self.classes > len(present):
            raise ComponentError(
                "partition.classes",
                f"{self.classes} classes for each client, but the rows have {len(present)}; "
                f"use at most {len(present)}, or another partition, such as iid",
            )
        if num_clients * self.classes < len(present):
            raise ComponentError(
                "partition.classes",
                f"{num_clients} clients with {self.classes} classes each hold at most {num_clients * self.classes} of "
                f"{len(present)} classes; raise classes to at least {-(-len(present) // num_clients)}, or clients to "
                f"at least {-(-len(present) // self.classes)}",
            )
        owner = np.empty(len(rows), dtype=np.int64)
        for label, owners in zip(present, self._owners_of_classes(num_clients, len(present), rng), strict=True):
            members = rng.permutation(np.flatnonzero(labels == label))
            if len(members) < len(owners):
                raise ComponentError(
                    "partition",
                    f"class {label} has {len(members)} rows, but {len(owners)} clients are to have some of it. Lower "
                    f"clients or classes, or leave more rows over (population, per_client of the injections)",
                )
            owner[members] = np.repeat(owners, even_sizes(len(members), len(owners)))
        return Ragged.group_by_owner(rows, owner, num_clients)

    def _owners_of_classes(self, num_clients: int, num_classes: int, rng: np.random.Generator) -> list[IntArray]:
        """For each class its owners, in random order, so that an odd row is not always the same client's."""
        counts = np.zeros(num_classes)
        holds = np.zeros((num_clients, num_classes), dtype=bool)
        for client in rng.permutation(num_clients):
            class_numbers = np.lexsort((rng.random(num_classes), counts))[: self.classes]
            holds[client, class_numbers] = True
            counts[class_numbers] += 1
        return [rng.permutation(np.flatnonzero(column)) for column in holds.T]
