"""What tests of canaries share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedmem.contracts.data import Space
from fedmem.modalities.tables import Tables
from fedmem.modalities.undescribed import modality_of_shape

CLASSES = 3


def space(*shape: int, **changes: Any) -> Space:
    """Values from 0 to 1 with a mean that differs from feature to feature."""
    mean = np.linspace(0.1, 0.6, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    whole = np.ones(shape, np.float32)
    own = Space(
        num_classes=CLASSES, num_rows=500, mean=mean, low=0 * whole, high=whole, modality=modality_of_shape(shape)
    )
    return replace(own, **changes)


BLOCKS = (1, 4, 1, 2)


def table(**changes: Any) -> Space:
    low = np.array([-1, 0, 0, 0, 0, 5, 0, 0], np.float32)
    high = np.array([3, 1, 1, 1, 1, 5.5, 1, 1], np.float32)
    return space(8, low=low, high=high, modality=Tables(blocks=BLOCKS), **changes)
