"""Arrays of your own from one .npz file: inputs, targets and, if there are, clients and test rows."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.data import Dataset
from fedmem.datasets._named_arrays import choose_names, dataset_of_arrays
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class Npz:
    """A file that `numpy.savez` wrote, with arrays by name; any number of rows, any number of classes.

    - `inputs` (or `x`, `x_train`): (n, features) for a table, (n, height, width) or (n, channels, height, width) for
      images. The numbers are in [0, 1], or images in bytes, which are divided by 255.
    - `targets` (or `y`, `y_train`): (n,) whole numbers 0..C-1.
    - `clients`: (n,) the natural owner of each row, a whole number or text; may be left out.
    - `test_inputs`, `test_targets` (or `x_test`, `y_test`): the test rows; without them a test set is drawn.
    - `blocks`: for a table with categories, the sizes of consecutive groups of columns. The size is 1 for a number and
      k for a one-hot of k; may be left out.
    - `class_names`: (C,) text, the name of each class; may be left out.

    `ids` number the rows in the file, test rows after the others.

    Fields

    - `path`: the file, from the folder in which fedmem is started.
    - `rows`: training rows, drawn from those there are; null for all.
    - `test`: test rows; null for all test rows of the file, or a fifth of its rows if it has no test rows.
    - `sha256`: refuse a file with another checksum; empty to take any. Whatever is written here, a finished run is
      not served after the content of its file has changed.

    Guarantees:

    - whatever is drawn is stratified: every class has its exact share of rows, rounded up or down;
    - every class has a training row;
    - nothing in the file is run: arrays that would need pickle are refused.

    Errors: `ComponentError` if the file is missing or no .npz, or an array is missing or has the wrong shape. Also if
    an input is NaN, infinite or outside [0, 1], or the labels are not 0..C-1 with a training row each.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/mine.npz", x=np.eye(10), y=np.arange(10) % 2)
    ...     data = Npz(path=f"{folder}/mine.npz", test=4).load(np.random.default_rng(0))
    >>> data.train.inputs.shape, sorted(data.test.targets.tolist())
    ((6, 10), [0, 0, 1, 1])
    """

    path: str = "data.npz"
    rows: Annotated[int, annotated_types.Ge(1)] | None = None
    test: Annotated[int, annotated_types.Ge(1)] | None = None
    sha256: str = ""

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read and check the arrays, and draw what has to be drawn."""
        arrays = self._read_arrays()
        return dataset_of_arrays(arrays, rng, path="dataset.path", rows=self.rows, test=self.test)

    def input_files(self) -> tuple[Path, ...]:
        """The file."""
        return (Path(self.path).expanduser(),)

    def _read_arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the file under the names that we give them."""
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise ComponentError("dataset.path", f"there is no file {path} (looked for from {Path.cwd()})")
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if self.sha256 and digest != self.sha256.lower():
            message = f"{path} has checksum {digest}, not {self.sha256}; if the change is meant, write the new one here"
            raise ComponentError("dataset.sha256", message)
        if not zipfile.is_zipfile(io.BytesIO(content)):
            raise ComponentError("dataset.path", f"{path} is no .npz file; write one with numpy.savez")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {}
            for ours, name in choose_names(file.files, str(path), "dataset.path").items():
                try:
                    arrays[ours] = file[name]
                except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
                    message = f"{name} in {path} cannot be read: {error}"
                    remedy = "save it as numbers of one shape, not as Python objects"
                    raise ComponentError("dataset.path", f"{message}; {remedy}") from error
        return arrays
