"""The modality of numbers of which only the shape is known."""

from __future__ import annotations

from fedmem.modalities.images import Images
from fedmem.modalities.modality import Modality
from fedmem.modalities.tables import Tables


def modality_of_shape(shape: tuple[int, ...]) -> Modality:
    """Images, and for inputs of one axis a table whose columns are not described.

    >>> modality_of_shape((1, 8, 8)).kind, modality_of_shape((20,))
    ('images', Tables(blocks=()))
    """
    return Tables() if len(shape) == 1 else Images()
