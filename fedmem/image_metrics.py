"""How near a reconstructed image is to the true one: error, PSNR, and who is compared with whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmem.types import FloatArray, IntArray

CAP = 100.0
"""The largest PSNR reported, in dB: a mean squared error of 1e-10, about what float32 can tell from 0."""


def squared_errors(images: NDArray[np.float32], truth: NDArray[np.float32]) -> FloatArray:
    """(m, n) mean squared error of every one of m images with every one of n true ones.

    Computed from the differences themselves, so that equal images have an error of exactly 0.
    """
    first = images.reshape(len(images), -1).astype(np.float64)
    second = truth.reshape(len(truth), -1).astype(np.float64)
    return np.stack([np.square(first - row).mean(axis=1) for row in second], axis=1)


def psnr(errors: FloatArray | np.float64) -> FloatArray:
    """Peak signal-to-noise ratio in dB of images in [0, 1]: `10 log10(1 / MSE)`, per image, higher is nearer.

    Capped at 100 dB, so that one exact image does not make a mean infinite; an error of NaN stays NaN.

    >>> [round(float(value), 6) for value in psnr(np.array([0.01, 0.25, 0.0]))]
    [20.0, 6.0206, 100.0]
    """
    return np.asarray(-10.0 * np.log10(np.maximum(errors, 10.0 ** (-CAP / 10.0))), dtype=np.float64)


def assign(errors: FloatArray) -> IntArray:
    """For each of n true images the position of the image that stands for it: least total error over the batch.

    `errors` is (m, n). The Hungarian method pairs every true image with an image of its own; with m < n images, each
    may stand for up to ceil(n / m) true ones, so that every true image, well rebuilt or not, has an answer.

    >>> assign(np.array([[0.9, 0.0], [0.1, 0.8]])).tolist(), assign(np.array([[0.3, 0.2]])).tolist()
    ([1, 0], [0, 0])
    """
    from scipy.optimize import linear_sum_assignment

    count, wanted = errors.shape
    assert count > 0
    repeats = -(-wanted // count)
    true, chosen = linear_sum_assignment(np.tile(errors, (repeats, 1)).T)
    assert len(true) == wanted
    return np.asarray(chosen % count, dtype=np.int64)
