"""Arrays by name, as an .npz file or a function of the user's own has them, made into a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.datasets._arrays import Arrays, assemble, inputs_of, labels_of, owners_of
from fedmem.errors import ComponentError

NAMES: Mapping[str, tuple[str, ...]] = {
    "inputs": ("inputs", "x", "x_train"),
    "targets": ("targets", "y", "y_train"),
    "test_inputs": ("test_inputs", "x_test"),
    "test_targets": ("test_targets", "y_test"),
    "clients": ("clients",),
    "blocks": ("blocks",),
    "class_names": ("class_names",),
}
"""Each array that is read -> the names that it may have."""


def choose_names(present: Sequence[str], source: str, path: str) -> dict[str, str]:
    """Map each array that is read to its name in `source`; `path` is the YAML key of errors.

    >>> choose_names(["x", "y", "z"], "mine.npz", "dataset.path")
    {'inputs': 'x', 'targets': 'y'}
    """
    chosen = {}
    for ours, names in NAMES.items():
        matches = [name for name in names if name in present]
        if len(matches) > 1:
            raise ComponentError(path, f"{source} has both {' and '.join(matches)}; keep one of them")
        if not matches and ours in ("inputs", "targets"):
            message = f"{source} has no array {' or '.join(names)}; it has {', '.join(present) or 'nothing'}"
            raise ComponentError(path, message)
        if matches:
            chosen[ours] = matches[0]
    if ("test_inputs" in chosen) != ("test_targets" in chosen):
        message = f"{source} has only one of test_inputs and test_targets; add the other, or leave out both"
        raise ComponentError(path, message)
    return chosen


def dataset_of_arrays(
    arrays: Mapping[str, NDArray[Any]],
    rng: np.random.Generator,
    *,
    path: str,
    rows: int | None = None,
    test: int | None = None,
) -> Dataset:
    """The data set of arrays under the names of `NAMES`, each checked; `rows` and `test` as in `assemble`."""
    inputs = inputs_of(arrays["inputs"], "inputs", path)
    labels = labels_of(arrays["targets"], len(inputs), "targets", path)
    held_out = None
    if "test_inputs" in arrays:
        test_inputs = inputs_of(arrays["test_inputs"], "test_inputs", path)
        held_out = (test_inputs, labels_of(arrays["test_targets"], len(test_inputs), "test_targets", path))
    owners: IntArray | None = None
    names: tuple[str, ...] = ()
    if "clients" in arrays:
        owners, names = owners_of(arrays["clients"], len(inputs), "clients", path)
    checked = Arrays(
        inputs=inputs,
        labels=labels,
        held_out=held_out,
        owners=owners,
        owner_names=names,
        blocks=_blocks(arrays, inputs, path),
        class_names=_class_names(arrays, labels, held_out, path),
    )
    return assemble(checked, rng, path=path, rows=rows, test=test)


def _class_names(
    arrays: Mapping[str, NDArray[Any]],
    labels: IntArray,
    held_out: tuple[NDArray[np.float32], IntArray] | None,
    path: str,
) -> tuple[str, ...]:
    """A name for each class, where they are given."""
    if "class_names" not in arrays:
        return ()
    names = arrays["class_names"]
    classes = 1 + int(max(labels.max(), labels.max() if held_out is None else held_out[1].max()))
    if names.shape != (classes,) or names.dtype.kind != "U" or len(set(names.tolist())) < classes:
        message = (
            f"class_names has shape {names.shape} and holds {names.dtype}; it should name each of {classes} classes"
        )
        raise ComponentError(path, f"{message} by a text of its own, in shape ({classes},)")
    return tuple(names.tolist())


def _blocks(arrays: Mapping[str, NDArray[Any]], inputs: NDArray[np.float32], path: str) -> tuple[int, ...]:
    """The groups of columns of a table, where they are given; each one-hot must be one."""
    if "blocks" not in arrays:
        return ()
    sizes = arrays["blocks"]
    if inputs.ndim != 2 or sizes.ndim != 1 or sizes.dtype.kind not in "ui" or sizes.min() < 1:
        message = (
            f"blocks has shape {sizes.shape} and holds {sizes.dtype}; it should be a list of sizes from 1 of a table"
        )
        raise ComponentError(path, message)
    if sizes.sum() != inputs.shape[1]:
        message = f"blocks add up to {sizes.sum()} columns, but inputs has {inputs.shape[1]}; correct the sizes"
        raise ComponentError(path, message)
    for end, size in zip(np.cumsum(sizes), sizes, strict=True):
        group = inputs[:, end - size : end]
        if size > 1 and not ((group == 0).sum(axis=1) == size - 1).all() & (group.max(axis=1) == 1).all():
            message = (
                f"columns {end - size} to {end - 1} should be a one-hot of {size}, but some row has not exactly one 1"
            )
            raise ComponentError(path, f"{message}; encode the category again, or write its columns as 1s")
    return tuple(int(size) for size in sizes)
