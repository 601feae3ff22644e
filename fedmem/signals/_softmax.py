"""Probabilities from logits, and means over what is asked of a passage."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.modalities.loss import UNASKED, over_what_is_asked


def log_probabilities(logits: FloatArray) -> FloatArray:
    """(..., C) the logs of the probabilities of all classes, in nats.

    >>> log_probabilities(np.zeros((1, 4))).round(4).tolist()
    [[-1.3863, -1.3863, -1.3863, -1.3863]]
    """
    from scipy.special import log_softmax

    return np.asarray(log_softmax(logits, axis=-1))


def labels_among(logits: FloatArray, targets: IntArray) -> IntArray:
    """(..., n, 1) the label of each example, or of each place of a passage, to take it from logits (T, ..., C)."""
    label = np.where(targets == UNASKED, 0, targets)
    return np.broadcast_to(label[..., None], (*logits.shape[:-1], 1))


def by_example(values: FloatArray, targets: IntArray) -> FloatArray:
    """(T, n) values of examples; of passages (T, n, L), the means over the places that are asked."""
    return np.asarray(over_what_is_asked(values, targets), dtype=np.float64)
