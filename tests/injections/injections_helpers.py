"""What tests of injections share."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.modalities.undescribed import modality_of_shape

CLASSES = 4


def rows(targets: IntArray) -> Examples:
    """Rows whose input tells their id."""
    ids = np.arange(len(targets))
    return Examples(inputs=ids.astype(np.float32)[:, None], targets=targets, ids=ids)


def pictures(*shape: int) -> Space:
    """What is public about pictures of this shape with values from 0 to 1, 0.25 on average."""
    whole = np.ones(shape, np.float32)
    return Space(
        num_classes=CLASSES,
        num_rows=1000,
        mean=np.float32(0.25) * whole,
        low=0 * whole,
        high=whole,
        modality=modality_of_shape(whole.shape),
    )


SPACE = pictures(1)


def skewed(count: int) -> list[ClientData]:
    """Two clients: the first holds only class 0, the second classes 1 and 2 as 3 to 1."""
    first = ClientData(client=0, examples=rows(np.zeros(count, np.int64)))
    return [first, ClientData(client=1, examples=rows(np.tile([1, 1, 1, 2], count // 4)))]
