"""How near a reconstructed image is to the true one: error, PSNR, SSIM, and who is compared with whom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.types import FloatArray, IntArray

CAP = 100.0
"""The largest PSNR reported, in dB: a mean squared error of 1e-10, about what float32 can tell from 0."""


def squared_errors(images: NDArray[np.float32], truth: NDArray[np.float32]) -> FloatArray:
    """(m, n) mean squared error of every one of m images with every one of n true ones.

    Computed from the differences themselves, so that equal images have an error of exactly 0.
    """
    first = images.reshape(len(images), -1).astype(np.float64)
    second = truth.reshape(len(truth), -1).astype(np.float64)
    return np.stack([np.square(first - row).mean(axis=1) for row in second], axis=1)


def nearest(images: NDArray[np.float32], gallery: NDArray[np.float32]) -> float:
    """The least mean squared error between any of m images and any of G of a gallery; NaN where either has none.

    Candidates come from products, which round; the error of each is then that of `squared_errors`, so that ties with
    others are ties to the last bit.

    >>> nearest(np.zeros((2, 4), np.float32), np.array([[1.0] * 4, [0.5] * 4], np.float32))
    0.25
    """
    if not len(images) or not len(gallery):
        return float("nan")
    first = images.reshape(len(images), -1).astype(np.float64)
    second = gallery.reshape(len(gallery), -1).astype(np.float64)
    closest = (np.square(second).sum(axis=1) - 2.0 * first @ second.T).argmin(axis=1)
    return float(np.square(first - second[closest]).mean(axis=1).min())


def ssim(images: NDArray[np.float32], truth: NDArray[np.float32]) -> FloatArray:
    """(n,) structural similarity of each image (C, H, W) in [0, 1] with its true one, -1..1, higher is more alike.

    The mean over Gaussian windows of 11 by 11 pixels (standard deviation 1.5) around every pixel of every channel, the
    image being mirrored at its edges. NaN where inputs are no images, or have fewer than 6 pixels on a side.

    >>> one = np.eye(8, dtype=np.float32)[None, None]
    >>> ssim(one, one).tolist(), ssim(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)).tolist()
    ([1.0], [nan])

    Reference: Wang, Bovik, Sheikh and Simoncelli (2004).
    """
    if images.ndim != 4 or not len(images) or min(images.shape[2:]) < 6:
        return np.full(len(images), np.nan)
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in (images, truth))
    found = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(found, torch.Tensor)
    return found.reshape(-1).numpy()


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
