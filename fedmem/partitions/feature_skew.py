"""Feature skew: every client sees its images rotated or paled in its own way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, Partition, partition_declaration
from fedmem.errors import ComponentError
from fedmem.modalities.images import Images
from fedmem.partitions.iid import IID


@dataclass(frozen=True, kw_only=True)
class FeatureSkew:
    """Client k of N sees images transformed by the amount a_k = `strength` k / N; `base` decides the rows of each
    client.

    `rotation` turns by 360 a_k degrees, counterclockwise about the middle, with bilinear interpolation and black where
    the image ends. Strength 1 with 4 clients is 0, 90, 180 and 270 degrees. `contrast` turns x into the shade 1/2 + (1
    - a_k) (x - 1/2), so that strength 1 brings the last clients close to a plain grey. Client 0 sees images as they
    are.

    Base rows are transformed, as are audit examples that are real rows, by their owner, also where an injection altered
    them. So are the rows that stand in for examples. Canaries keep their pixels, because their references have no
    owner. An injection whose canaries are carried by real rows, such as `unique_feature`, is refused. Test and
    population are as loaded, so that client 0 is closest to the test data.

    Fields

    - `transform`: what differs between clients.
    - `strength`: the span of the amounts, as a share of a full turn or of the contrast.
    - `base`: the partition that decides which client holds which rows.

    Guarantees:

    - rows, sizes and labels are those of `base`, whose draws are left alone;
    - nothing is drawn for the transformation. It is a function of client, N and image, which stays in [0, 1];
    - quarter turns of square images move pixels and change none.

    Errors: `ComponentError` if inputs are no images (channels, height, width), and those of `base`.

    >>> image = np.array([[[[0.0, 1.0], [0.0, 0.0]]]], np.float32)
    >>> FeatureSkew(strength=1.0).shift(1, 4, image).tolist()
    [[[[1.0, 0.0], [0.0, 0.0]]]]

    References: Ghosh, Chung, Yin and Ramchandran (2020), An Efficient Framework for Clustered Federated Learning
    (rotation). Kairouz et al. (2021), Advances and Open Problems in Federated Learning, section 3.1 (feature skew).
    """

    transform: Literal["rotation", "contrast"] = "rotation"
    strength: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.25
    base: Partition = field(default_factory=IID)

    @property
    def leave_out(self) -> bool:
        """Whether `base` may leave rows out."""
        return partition_declaration(self.base).leave_out

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        shape = data.train.inputs.shape[1:]
        if not isinstance(data.modality, Images) or not shape[:-2]:
            raise ComponentError(
                "partition.kind",
                f"feature_skew changes images (channels, height, width), but inputs have shape {tuple(shape)}; "
                "choose another data set, or another partition, such as dirichlet",
            )
        try:
            return self.base.assign(data, rows, num_clients, rng)
        except ComponentError as error:
            # The base cannot know that it is nested.
            raise ComponentError(error.path.replace("partition", "partition.base", 1), error.message) from error

    def shift(self, client: int, num_clients: int, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The images (n, channels, height, width) as this client sees them."""
        amount = self.strength * client / num_clients
        if self.transform == "contrast":
            shifted_images = 0.5 + (1 - amount) * (inputs.astype(np.float64) - 0.5)
        else:
            shifted_images = _rotate(inputs, amount)
        return np.clip(shifted_images, 0, 1).astype(np.float32)


def _rotate(images: NDArray[np.float32], fraction: float) -> NDArray[np.float64]:
    """Rotated counterclockwise by a share of a full turn; each pixel is read where it was before."""
    height, width = images.shape[-2:]
    # Quarter turns exactly: the sine of the float nearest to pi is not zero.
    sine, cosine = (round(part, 12) for part in (math.sin(2 * math.pi * fraction), math.cos(2 * math.pi * fraction)))
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    rows, columns = cosine * y + sine * x + (height - 1) / 2, -sine * y + cosine * x + (width - 1) / 2
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    # Pixels first: what is gathered for one pixel then lies side by side, which is several times faster.
    pixels = np.ascontiguousarray(images.reshape(-1, height * width).T)
    rotated_images = np.zeros(pixels.shape)
    for row, beside in ((top, rows - top), (top + 1, top + 1 - rows)):
        for column, next_to in ((left, columns - left), (left + 1, left + 1 - columns)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = np.where(inside, (1 - beside) * (1 - next_to), 0.0)
            place = np.clip(row, 0, height - 1) * width + np.clip(column, 0, width - 1)
            rotated_images += weight.reshape(-1, 1) * pixels[place.ravel()]
    return rotated_images.T.reshape(images.shape)
