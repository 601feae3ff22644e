"""What tests of partitions share."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, Examples, Partition
from fedmem.modalities.undescribed import modality_of_shape
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.iid import IID
from fedmem.partitions.inner_dirichlet import InnerDirichlet
from fedmem.partitions.pathological import Pathological
from fedmem.partitions.quantity_skew import QuantitySkew
from fedmem.partitions.shards import Shards


def labelled(targets: IntArray) -> Dataset:
    """A data set that is nothing but labels."""
    rows = Examples(inputs=np.zeros((len(targets), 1), np.float32), targets=targets, ids=np.arange(len(targets)))
    return Dataset(
        train=rows,
        test=rows.take(np.arange(0)),
        num_classes=int(targets.max()) + 1,
        modality=modality_of_shape(rows.inputs.shape[1:]),
    )


def shares(partition: Partition, targets: IntArray, clients: int, seed: int) -> np.ndarray:
    """(clients, classes) share of each class that each client got."""
    data = labelled(targets)
    parts = partition.assign(data, np.arange(len(targets)), clients, np.random.default_rng(seed))
    counts = np.stack([np.bincount(targets[part], minlength=data.num_classes) for part in parts])
    return counts / np.bincount(targets, minlength=data.num_classes)


# Partitions by labels or sizes whose clients, and, but for shards, whose classes are exchangeable.
EXCHANGEABLE: list[Partition] = [
    IID(),
    Dirichlet(alpha=0.5, min_rows=1),
    Shards(per_client=2),
    Pathological(classes=2),
    QuantitySkew(alpha=0.5, min_rows=1),
    QuantitySkew(law="power", alpha=1.5, min_rows=1),
    InnerDirichlet(alpha=0.3, min_rows=1),
    InnerDirichlet(alpha=0.3, sigma=1.0, min_rows=1),
]
