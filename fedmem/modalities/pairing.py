"""Which reconstruction stands for which true example."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray


def assign(errors: FloatArray) -> IntArray:
    """For each of n true images the position of the image that stands for it: least total error over the batch.

    `errors` is (m, n). The Hungarian method pairs every true image with an image of its own. With m < n images, each
    may stand for up to ceil(n / m) true ones. Every true image, well reconstructed or not, thus has an answer.

    >>> assign(np.array([[0.9, 0.0], [0.1, 0.8]])).tolist(), assign(np.array([[0.3, 0.2]])).tolist()
    ([1, 0], [0, 0])
    """
    from scipy.optimize import linear_sum_assignment

    count, num_true = errors.shape
    assert count > 0
    repeats = -(-num_true // count)
    true, matches = linear_sum_assignment(np.tile(errors, (repeats, 1)).T)
    assert len(true) == num_true
    return np.asarray(matches % count, dtype=np.int64)
