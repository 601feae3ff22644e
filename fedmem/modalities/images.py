"""Images: numbers in [0, 1] whose last two axes are height and width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.data import Examples
from fedmem.modalities.modality import SHADES, Rows, characters, shrink
from fedmem.modalities.numbers import Numbers, draw_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SKETCH = 14
"""Pixels a side of a sketch, at most."""


@dataclass(frozen=True, kw_only=True)
class Images(Numbers):
    """Images (channels, height, width), or (height, width), of numbers in [0, 1].

    Reconstructions have the reading `ssim` as well, where images have channels and at least 6 pixels a side.

    >>> Images().grid((3, 28, 32)), Images().problem((20,), 10)
    ((28, 32), 'images have shape (channels, height, width) or (height, width), not (20,)')
    """

    kind: ClassVar[str] = "images"

    def problem(self, shape: tuple[int, ...], num_classes: int) -> str:
        """An image has two axes at least."""
        return "" if len(shape) > 1 else f"images have shape (channels, height, width) or (height, width), not {shape}"

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Height and width."""
        return shape[-2:]

    def details(
        self, reconstructions: Rows, truth: Rows, errors: FloatArray, population: Examples
    ) -> dict[str, FloatArray]:
        """Structural similarity and mean squared error."""
        return {"ssim": ssim(reconstructions, truth), "mse": errors}

    def sketch(self, inputs: Rows) -> tuple[str, ...]:
        """In five shades, two characters a pixel, at most 14 by 14 pixels: means over neighbours and channels."""
        image = np.asarray(inputs, dtype=np.float64)
        image = image.reshape(-1, *image.shape[-2:]).mean(axis=0)
        small = shrink(shrink(image, 0, _SKETCH), 1, _SKETCH)
        return tuple(characters(np.repeat(row, 2), SHADES) for row in small)

    @staticmethod
    def draw(axes: Axes, values: Rows) -> None:
        """In grey, or in colour where there are several channels."""
        draw_image(axes, _last_channels(values))

    @staticmethod
    def pixels(values: Rows) -> NDArray[np.uint8] | None:
        """Shades from black at 0 to white at 1, as `draw` shows them; None where there are no three channels.

        >>> Images.pixels(np.array([[[0.0, 0.5, 1.0]]]))
        array([[  0, 128, 255]], dtype=uint8)
        """
        image = _last_channels(values)
        if image.ndim == 3 and image.shape[-1] != 3:
            return None
        return np.rint(np.nan_to_num(image) * 255).astype(np.uint8)


def _last_channels(values: Rows) -> NDArray[np.float64]:
    """An image (height, width), or (height, width, channels) where there are several, in [0, 1]."""
    image = np.clip(np.asarray(values, dtype=np.float64), 0, 1)
    if image.ndim == 3:
        image = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    return image


def ssim(images: NDArray[np.float32], truth: NDArray[np.float32]) -> FloatArray:
    """(n,) structural similarity of each image (C, H, W) in [0, 1] to its true one, -1..1, higher is more similar.

    The mean over Gaussian windows of 11 by 11 pixels (standard deviation 1.5) around every pixel of every channel. The
    image is mirrored at its edges. NaN where inputs are no images, or have fewer than 6 pixels on a side.

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
    values = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(values, torch.Tensor)
    return values.reshape(-1).numpy()
