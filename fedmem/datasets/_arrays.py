"""Arrays of a user's own: checked with messages that teach, then made into a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, Examples
from fedmem.datasets._splits import sample, split
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables
from fedmem.modalities.undescribed import modality_of_shape

_CHANNELS = (1, 3, 4)


def inputs_of(raw: NDArray[Any], name: str, path: str) -> NDArray[np.float32]:
    """(rows, features), (rows, 1, height, width) or (rows, channels, ...) float32 in [0, 1]; bytes of images / 255.

    `name` is what the user calls the array, `path` the YAML key that led to it.
    """
    if raw.ndim < 2 or len(raw) == 0 or 0 in raw.shape:
        raise ComponentError(
            path,
            f"{name} has shape {raw.shape}. Give a table (rows, features), or images (rows, height, width) or (rows, "
            "channels, height, width), with at least one row",
        )
    if raw.ndim == 4 and raw.shape[3] in _CHANNELS and raw.shape[1] not in _CHANNELS:
        message = f"{name} has shape {raw.shape} with channels last; use its transpose(0, 3, 1, 2)"
        raise ComponentError(path, message)
    if raw.dtype.kind not in "buif":
        raise ComponentError(path, f"{name} holds {raw.dtype}, but should hold numbers; save it with astype('float32')")
    if not np.isfinite(raw).all():
        bad = np.flatnonzero(~np.isfinite(raw).reshape(len(raw), -1).all(axis=1))
        message = f"{name} has NaN or infinity in {len(bad)} of {len(raw)} rows, first in row {bad[0]}"
        raise ComponentError(path, f"{message}; fill or drop these rows")
    values = raw[:, None] if raw.ndim == 3 else raw
    low, high = values.min(), values.max()
    if values.dtype == np.uint8 and values.ndim == 4:
        if high <= 1:
            message = (
                f"{name} are images of bytes, but none exceeds 1; save them with astype('float32'), or as 0 to 255"
            )
            raise ComponentError(path, message)
        return values.astype(np.float32) / np.float32(255)
    if low < 0 or high > 1:
        remedy = "scale each column by a range that you fix in advance" if raw.ndim == 2 else "divide images by 255"
        message = f"{name} runs from {low:g} to {high:g}, but inputs must lie in [0, 1]; {remedy}"
        raise ComponentError(path, message)
    return values.astype(np.float32)


def labels_of(raw: NDArray[Any], rows: int, name: str, path: str) -> IntArray:
    """(rows,) whole numbers from 0."""
    if raw.shape != (rows,):
        message = f"{name} has shape {raw.shape}, but there are {rows} rows of inputs; it should be ({rows},)"
        raise ComponentError(path, message)
    if raw.dtype.kind not in "bui":
        remedy = "number the classes, for example by np.unique(labels, return_inverse=True)[1]"
        raise ComponentError(path, f"{name} holds {raw.dtype}, but labels are whole numbers from 0; {remedy}")
    labels = raw.astype(np.int64)
    if labels.min() < 0:
        message = f"{name} goes down to {labels.min()}, but labels count from 0; renumber or drop these rows"
        raise ComponentError(path, message)
    return labels


def number_labels(parts: Sequence[NDArray[Any]], name: str, path: str) -> tuple[list[IntArray], tuple[str, ...]]:
    """The labels of each part as numbers 0..C-1, in the sorted order of all labels of any part, and their names.

    There are no names where the labels are these numbers already.
    """
    for part in parts:
        if part.ndim != 1 or part.dtype.kind not in "buiUS":
            message = (
                f"{name} has shape {part.shape} and holds {part.dtype}; it should be one whole number or text a row"
            )
            raise ComponentError(path, f"{message}, so choose a data set (or a column) of single labels without gaps")
    classes = np.unique(np.concatenate(parts))
    names = tuple(map(str, classes.tolist()))
    numbered = names == tuple(map(str, range(len(classes))))
    return [np.searchsorted(classes, part).astype(np.int64) for part in parts], () if numbered else names


def owners_of(raw: NDArray[Any], rows: int, name: str, path: str) -> tuple[IntArray, tuple[str, ...]]:
    """(rows,) owners, numbered in sorted order of what the user calls them, and these names."""
    if raw.shape != (rows,) or raw.dtype.kind not in "buiUS":
        raise ComponentError(
            path,
            f"{name} has shape {raw.shape} and holds {raw.dtype}. It should name the owner of each of the {rows} "
            f"rows by a whole number or text, in shape ({rows},)",
        )
    names, owners = np.unique(raw, return_inverse=True)
    return owners.astype(np.int64), tuple(map(str, names.tolist()))


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Checked arrays of a data set.

    Attributes:
        inputs: (N, *shape) training inputs.
        labels: (N,) their labels, from 0.
        held_out: Inputs and labels of a test set, if the data set has one.
        owners: (N,) the client of each training row, if the data set names clients.
        blocks: Sizes of one-hot blocks of a table.
        owner_names: Names of the owners, in the order of their numbers.
        class_names: Names of the classes; empty where they have none.
        columns: (N,) further values of each training row, by name.
        decisions: The decisions of the loader, a line each.
    """

    inputs: NDArray[np.float32]
    labels: IntArray
    held_out: tuple[NDArray[np.float32], IntArray] | None = None
    owners: IntArray | None = None
    blocks: tuple[int, ...] = ()
    owner_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    decisions: tuple[str, ...] = ()


def assemble(
    arrays: Arrays, rng: np.random.Generator, *, path: str, rows: int | None = None, test: int | None = None
) -> Dataset:
    """The data set of checked arrays; ids number the rows, those of `held_out` after the others.

    Without `held_out` the test set is drawn, stratified: `test` rows, for None a fifth. With it, `test` of its rows,
    for None all.
    """
    inputs, labels, held_out, owners = arrays.inputs, arrays.labels, arrays.held_out, arrays.owners
    ids = np.arange(len(labels))
    every = Examples(inputs=inputs, targets=labels, ids=ids)
    classes = _classes(labels if held_out is None else np.concatenate([labels, held_out[1]]), path)
    if held_out is None:
        train_positions, test_positions = split(
            labels, rows, max(1, len(labels) // 5) if test is None else test, classes, rng
        )
        tests = every.take(test_positions)
    else:
        if held_out[0].shape[1:] != inputs.shape[1:]:
            message = (
                f"test inputs have shape {held_out[0].shape[1:]}, training inputs {inputs.shape[1:]}; make them equal"
            )
            raise ComponentError(path, message)
        for name, count, size in (("rows", rows, len(labels)), ("test", test, len(held_out[1]))):
            if count is not None and count > size:
                raise ComponentError(f"dataset.{name}", f"{count} exceeds the {size} rows there are; lower {name}")
        train_positions = sample(labels, rows, rng)
        tests = Examples(inputs=held_out[0], targets=held_out[1], ids=len(labels) + np.arange(len(held_out[1])))
        tests = tests.take(sample(held_out[1], test, rng))
    absent = np.setdiff1d(np.arange(classes), labels[train_positions])
    if len(absent):
        lost = ", ".join(arrays.class_names[label] for label in absent) if arrays.class_names else _first_few(absent)
        message = f"no training row is left of class {lost}; raise rows, lower test, or drop rare classes"
        raise ComponentError(path, message)
    return Dataset(
        train=every.take(train_positions),
        test=tests,
        num_classes=classes,
        natural=None if owners is None else owners[train_positions],
        client_names=arrays.owner_names,
        class_names=arrays.class_names,
        columns={name: values[train_positions] for name, values in arrays.columns.items()},
        decisions=arrays.decisions,
        modality=Tables(blocks=arrays.blocks) if arrays.blocks else modality_of_shape(inputs.shape[1:]),
    )


def _classes(labels: IntArray, path: str) -> int:
    """How many classes there are: at least two, and none left out."""
    numbers = np.unique(labels)
    absent = np.setdiff1d(np.arange(numbers[-1] + 1 if numbers[-1] < 2 * len(labels) else 0), numbers)
    if len(absent) or len(numbers) <= numbers[-1]:
        missing = (
            f"class {_first_few(absent)} has no row"
            if len(absent)
            else f"{len(numbers)} classes go up to {numbers[-1]}"
        )
        remedy = "renumber the classes, for example by np.unique(labels, return_inverse=True)[1]"
        raise ComponentError(path, f"labels should be 0 to {len(numbers) - 1} without a gap, but {missing}; {remedy}")
    if len(numbers) < 2:
        raise ComponentError(path, "all rows are of one class, but there is nothing to learn from fewer than two")
    return len(numbers)


def _first_few(numbers: IntArray) -> str:
    """The first few numbers."""
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
