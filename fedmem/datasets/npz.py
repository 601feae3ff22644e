"""Arrays of your own from one .npz file: inputs, targets and, if there are, clients and test rows."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.datasets._arrays import Arrays, assemble, inputs_of, labels_of, owners_of
from fedmem.errors import ComponentError

_NAMES: Mapping[str, tuple[str, ...]] = {
    "inputs": ("inputs", "x", "x_train"),
    "targets": ("targets", "y", "y_train"),
    "test_inputs": ("test_inputs", "x_test"),
    "test_targets": ("test_targets", "y_test"),
    "clients": ("clients",),
    "blocks": ("blocks",),
    "class_names": ("class_names",),
}
"""What is read -> the names that it may have."""


@dataclass(frozen=True, kw_only=True)
class Npz:
    """A file that `numpy.savez` wrote, with arrays by name; any number of rows, any number of classes.

    - `inputs` (or `x`, `x_train`): (n, features) for a table, (n, height, width) or (n, channels, height, width) for
      images; numbers in [0, 1], or images in bytes, which are divided by 255.
    - `targets` (or `y`, `y_train`): (n,) whole numbers 0..C-1.
    - `clients`: (n,) the natural owner of each row, a whole number or text; may be left out.
    - `test_inputs`, `test_targets` (or `x_test`, `y_test`): the test rows; without them a test set is drawn.
    - `blocks`: for a table with categories, the sizes of consecutive groups of columns, 1 for a number and k for a
      one-hot of k; may be left out.
    - `class_names`: (C,) text, the name of each class; may be left out.

    `ids` number the rows in the file, test rows after the others.

    Fields

    - `path`: the file, from the folder in which fedmem is started.
    - `rows`: training rows, drawn from those there are; null for all.
    - `test`: test rows; null for all test rows of the file, or a fifth of its rows if it has none apart.
    - `sha256`: refuse a file with another checksum; empty to take any. Whatever is written here, a finished run is
      not served after the content of its file has changed.

    Guarantees:

    - whatever is drawn is stratified: every class has its exact share of rows, rounded up or down;
    - every class has a training row;
    - nothing in the file is run: arrays that would need pickle are refused.

    Errors: `ComponentError` if the file is missing or no .npz, an array is missing or has the wrong shape, an input is
    NaN, infinite or outside [0, 1], or the labels are not 0..C-1 with a training row each.

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
        inputs = inputs_of(arrays["inputs"], "inputs", "dataset.path")
        labels = labels_of(arrays["targets"], len(inputs), "targets", "dataset.path")
        held_out = None
        if ("test_inputs" in arrays) != ("test_targets" in arrays):
            message = f"{self.path} has only one of test_inputs and test_targets; add the other, or leave out both"
            raise ComponentError("dataset.path", message)
        if "test_inputs" in arrays:
            test_inputs = inputs_of(arrays["test_inputs"], "test_inputs", "dataset.path")
            test_labels = labels_of(arrays["test_targets"], len(test_inputs), "test_targets", "dataset.path")
            held_out = (test_inputs, test_labels)
        owners: IntArray | None = None
        names: tuple[str, ...] = ()
        if "clients" in arrays:
            owners, names = owners_of(arrays["clients"], len(inputs), "clients", "dataset.path")
        blocks = _blocks(arrays, inputs)
        checked = Arrays(
            inputs=inputs,
            labels=labels,
            held_out=held_out,
            owners=owners,
            owner_names=names,
            blocks=blocks,
            class_names=_class_names(arrays, labels, held_out),
        )
        return assemble(checked, rng, path="dataset.path", rows=self.rows, test=self.test)

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
            names_by_array = {ours: [name for name in names if name in file.files] for ours, names in _NAMES.items()}
            for ours, names in names_by_array.items():
                if len(names) > 1:
                    raise ComponentError("dataset.path", f"{path} has both {' and '.join(names)}; keep one of them")
                if not names and ours in ("inputs", "targets"):
                    message = f"{path} has no array {' or '.join(_NAMES[ours])}; it has {', '.join(file.files)}"
                    raise ComponentError("dataset.path", message)
            arrays = {}
            for ours, names in names_by_array.items():
                for name in names:
                    try:
                        arrays[ours] = file[name]
                    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
                        message = f"{name} in {path} cannot be read: {error}"
                        remedy = "save it as numbers of one shape, not as Python objects"
                        raise ComponentError("dataset.path", f"{message}; {remedy}") from error
        return arrays


def _class_names(
    arrays: Mapping[str, NDArray[Any]], labels: IntArray, held_out: tuple[NDArray[np.float32], IntArray] | None
) -> tuple[str, ...]:
    """A name for each class, if the file has them."""
    if "class_names" not in arrays:
        return ()
    names = arrays["class_names"]
    classes = 1 + int(max(labels.max(), labels.max() if held_out is None else held_out[1].max()))
    if names.shape != (classes,) or names.dtype.kind != "U" or len(set(names.tolist())) < classes:
        message = (
            f"class_names has shape {names.shape} and holds {names.dtype}; it should name each of {classes} classes"
        )
        raise ComponentError("dataset.path", f"{message} by a text of its own, in shape ({classes},)")
    return tuple(names.tolist())


def _blocks(arrays: Mapping[str, NDArray[Any]], inputs: NDArray[np.float32]) -> tuple[int, ...]:
    """The groups of columns of a table, if the file says them; each one-hot must be one."""
    if "blocks" not in arrays:
        return ()
    sizes = arrays["blocks"]
    if inputs.ndim != 2 or sizes.ndim != 1 or sizes.dtype.kind not in "ui" or sizes.min() < 1:
        message = (
            f"blocks has shape {sizes.shape} and holds {sizes.dtype}; it should be a list of sizes from 1 of a table"
        )
        raise ComponentError("dataset.path", message)
    if sizes.sum() != inputs.shape[1]:
        message = f"blocks add up to {sizes.sum()} columns, but inputs has {inputs.shape[1]}; correct the sizes"
        raise ComponentError("dataset.path", message)
    for end, size in zip(np.cumsum(sizes), sizes, strict=True):
        group = inputs[:, end - size : end]
        if size > 1 and not ((group == 0).sum(axis=1) == size - 1).all() & (group.max(axis=1) == 1).all():
            message = (
                f"columns {end - size} to {end - 1} should be a one-hot of {size}, but some row has not exactly one 1"
            )
            raise ComponentError("dataset.path", f"{message}; encode the category again, or write its columns as 1s")
    return tuple(int(size) for size in sizes)
