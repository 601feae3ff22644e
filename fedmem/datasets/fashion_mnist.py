"""Fashion-MNIST: images of clothes in ten classes, the published split; run `fedmem fetch fashion_mnist` first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.data import Dataset, Examples
from fedmem.datasets._idx import parse
from fedmem.datasets._splits import sample
from fedmem.fetched.files import Published, read_verified
from fedmem.fetched.sources import DebianPackage, Web
from fedmem.modalities.images import Images

_TRAIN, _TEST = 60_000, 10_000
_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True, kw_only=True)
class FashionMnist:
    """70 000 grey images of articles of clothing, 28x28 pixels in ten classes, as a shop shows them.

    Inputs (n, 1, 28, 28) float32 are the grey levels 0..255 divided by 255. Targets are 0 T-shirt, 1 trouser, 2
    pullover, 3 dress, 4 coat, 5 sandal, 6 shirt, 7 sneaker, 8 bag, 9 ankle boot. `ids` number the published rows, 0..59
    999 for training and 60 000..69 999 for test. The classes are of equal size.

    Fields

    - `rows`: training rows, drawn from the 60 000; null for all.
    - `test`: test rows, drawn from the 10 000; null for all.

    Guarantees:

    - the published split is kept: no test row is ever trained on, whatever is drawn;
    - a smaller draw is stratified: every class has its exact share of rows, rounded up or down;
    - the bytes are the published ones, or loading fails; it needs no network.

    Errors: `ComponentError` if the data set is not fetched, or a file has changed since.

    >>> FashionMnist.published.name, FashionMnist(rows=2000).test
    ('fashion_mnist', None)

    Reference: Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, arXiv 1708.07747; MIT licence.
    """

    published: ClassVar[Published] = Published(
        name="fashion_mnist",
        licence="MIT",
        files=_SHA256,
        sources=(
            Web(
                description="repository of Zalando Research",
                files={
                    name: f"https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/{name}.gz"
                    for name in _SHA256
                },
            ),
            DebianPackage(
                package="dataset-fashion-mnist",
                files={name: f"usr/share/datasets/fashion-mnist/{name}.gz" for name in _SHA256},
            ),
        ),
    )

    rows: Annotated[int, annotated_types.Ge(10), annotated_types.Le(_TRAIN)] | None = None
    test: Annotated[int, annotated_types.Ge(10), annotated_types.Le(_TEST)] | None = None

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the fetched files, and draw the rows if not all are wanted."""
        return Dataset(
            train=self._part("train", 0, self.rows, rng),
            test=self._part("t10k", _TRAIN, self.test, rng),
            num_classes=10,
            modality=Images(),
        )

    def _part(self, name: str, first_id: int, count: int | None, rng: np.random.Generator) -> Examples:
        """The rows of one part, all or a sample."""
        images = parse(read_verified(self.published, f"{name}-images-idx3-ubyte"))
        labels = parse(read_verified(self.published, f"{name}-labels-idx1-ubyte")).astype(np.int64)
        positions = sample(labels, count, rng)
        return Examples(
            inputs=images[positions][:, None].astype(np.float32) / np.float32(255),
            targets=labels[positions],
            ids=first_id + positions,
        )
