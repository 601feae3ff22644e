"""Pixels: images as rows of tokens, one grey level for each pixel, in raster order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.modalities.modality import Rows
from fedmem.modalities.texts import Texts

LEVELS = " 123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The characters that stand for grey levels, from the darkest on."""


@dataclass(frozen=True, kw_only=True)
class Pixels(Texts):
    """Images of D pixels as texts of D + 1 tokens: a first token, 0 in every image, and a level 0..V − 1 for each.

    So a network of texts predicts each pixel from those before it. The product of its probabilities is that of the
    image, and sums to 1 over all V^D images. Distances are between grey levels, where level v is v / (V − 1).

    Attributes:
        shape: (channels, height, width) of the images.

    >>> Pixels(vocabulary=tuple(LEVELS[:5]), shape=(1, 2, 2)).images(np.array([[0, 4, 2, 0, 1]])).tolist()
    [[[[1.0, 0.5], [0.0, 0.25]]]]
    """

    kind: ClassVar[str] = "pixels"

    shape: tuple[int, ...] = ()

    def problem(self, shape: tuple[int, ...], num_classes: int) -> str:
        """A row has a token for each pixel."""
        pixels = math.prod(self.shape)
        if shape != (pixels,):
            return f"images of shape {self.shape} have {pixels} pixels, but rows have shape {shape}"
        return super().problem(shape, num_classes)

    def images(self, rows: IntArray) -> FloatArray:
        """(n, *shape) grey levels in [0, 1] of rows (n, D + 1) as in `comparison_rows`; NaN where there is no token."""
        levels = np.where(rows[:, 1:] < 0, np.nan, rows[:, 1:] / (len(self.vocabulary) - 1))
        return levels.reshape(len(rows), *self.shape)

    def distances(self, rows: Rows, truth: Rows) -> FloatArray:
        """(m, n) root mean squared differences of grey levels, 0..1, over the pixels that the true row has.

        A missing pixel of the other row counts as a difference of 1. NaN where the true row has no pixel.
        """
        first, second = (self.images(part).reshape(len(part), math.prod(self.shape)) for part in (rows, truth))
        distances = np.full((len(first), len(second)), np.nan)
        for column, row in enumerate(second):
            asked = ~np.isnan(row)
            if asked.any():
                differences = np.nan_to_num(first[:, asked] - row[asked], nan=1.0)
                distances[:, column] = np.sqrt(np.square(differences).mean(axis=1))
        return distances
