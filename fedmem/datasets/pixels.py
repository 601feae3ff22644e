"""Images as texts: the grey levels of another data set of images, pixel by pixel, for networks that predict tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, DatasetLoader, Examples
from fedmem.datasets.digits import Digits
from fedmem.errors import ComponentError
from fedmem.modalities.images import Images
from fedmem.modalities.pixels import LEVELS
from fedmem.modalities.pixels import Pixels as PixelModality


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Images of another data set as rows of tokens: a token for each pixel, in the order of channels, rows, columns.

    A pixel x in [0, 1] becomes the level ⌊x (V − 1) + ½⌋ of V levels. Inputs (n, D) int64 are 0 and the first D − 1
    levels, targets (n, D) all D levels. So a network of texts, such as `transformer`, is an autoregressive model of
    images with an exact log density. All measures of texts apply to it.

    Ids, test set, owners, names of clients, columns and sensitive attributes are those of the images. The class of an
    image is in the column `class`, and no model is given it.

    Fields

    - `images`: the data set of images.
    - `levels`: V. 17 levels keep all grey levels of the digits.
    - `side`: pixels on a side; each is the mean of a block of pixels. null keeps all.

    Guarantees:

    - draws are those of the images alone, so the rows of each set are theirs;
    - tokens give back the image up to 1 / (2 (V − 1)) for each pixel.

    Errors: `ComponentError` for data that are no images, and for a side that does not divide theirs.

    >>> data = Pixels(levels=9, side=4).load(np.random.default_rng(0))
    >>> data.train.inputs.shape, data.num_classes, data.columns["class"][:3].tolist()
    ((1500, 16), 9, [0, 1, 2])

    Reference: van den Oord, Kalchbrenner and Kavukcuoglu (2016), Pixel recurrent neural networks.
    """

    reads_fetched_data: ClassVar[bool] = False

    images: DatasetLoader = Digits()  # noqa: RUF009
    levels: Annotated[int, annotated_types.Ge(2), annotated_types.Le(len(LEVELS))] = 17
    side: Annotated[int, annotated_types.Ge(1)] | None = None

    def load(self, rng: np.random.Generator) -> Dataset:
        """Load the images, and number their grey levels."""
        data = self.images.load(rng)
        if not isinstance(data.modality, Images):
            raise ComponentError(
                "dataset.images",
                f"pixels reads images, but the data are {data.modality.kind}; use a data set of images",
            )
        shape = self._shape(data.train.inputs.shape[1:])
        columns: dict[str, NDArray[Any]] = dict(data.columns)
        if "class" not in columns:
            labels = data.train.targets
            columns["class"] = np.array(data.class_names, dtype=object)[labels] if data.class_names else labels
        test = self._tokens(data.test, shape)
        train = self._tokens(data.train, shape)
        return replace(
            data,
            train=train,
            test=test,
            num_classes=self.levels,
            modality=PixelModality(vocabulary=tuple(LEVELS[: self.levels]), shape=shape),
            columns=columns,
            class_names=(),
            text_starts=np.sort(np.concatenate([train.ids, test.ids])),
        )

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(channels, height, width) after blocks are averaged."""
        channels, height, width = (1, *shape)[-3:]
        side = self.side
        if side is not None and (height % side or width % side):
            raise ComponentError(
                "dataset.side",
                f"images of {height} by {width} pixels have no {side} equal blocks on a side; use a divisor of "
                f"{math.gcd(height, width)}",
            )
        return (channels, height, width) if side is None else (channels, side, side)

    def _tokens(self, rows: Examples, shape: tuple[int, ...]) -> Examples:
        """The rows as tokens."""
        levels = quantise(rows.inputs, shape, self.levels)
        inputs = np.concatenate([np.zeros((len(levels), 1), dtype=np.int64), levels[:, :-1]], axis=1)
        return Examples(inputs=inputs, targets=levels, ids=rows.ids)


def quantise(images: NDArray[Any], shape: tuple[int, ...], levels: int) -> IntArray:
    """(n, D) the levels of images in [0, 1], after blocks are averaged so that they have this shape.

    >>> quantise(np.array([[[[0.0, 0.49], [0.5, 1.0]]]]), (1, 2, 2), 3).tolist()
    [[0, 1, 1, 2]]
    >>> quantise(np.array([[[[0.0, 0.5], [0.5, 1.0]]]]), (1, 1, 1), 5).tolist()
    [[2]]
    """
    channels, height, width = shape
    whole = np.asarray(images, dtype=np.float64).reshape(len(images), channels, *images.shape[-2:])
    rows, columns = whole.shape[-2] // height, whole.shape[-1] // width
    blocks = whole.reshape(len(whole), channels, height, rows, width, columns).mean(axis=(3, 5))
    numbers = np.floor(np.clip(blocks, 0.0, 1.0) * (levels - 1) + 0.5)
    return np.asarray(numbers.reshape(len(whole), -1), dtype=np.int64)
