"""Data of the user's own: a plain function or class that returns a data set, arrays by name, or a tuple of arrays."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.data import Dataset
from fedmem.contracts.own_part import OwnPart
from fedmem.contracts.validation import a_kind
from fedmem.datasets._named_arrays import choose_names, dataset_of_arrays
from fedmem.errors import ComponentError
from fedmem.seeding import seeded_generators


@runtime_checkable
class _ArrayLike(Protocol):
    """An array, a tensor, or a column of pandas."""

    def __array__(self) -> NDArray[Any]: ...


class OwnData(OwnPart):
    """The base of components that are made from a function, or from a class with the method `load`.

    The arguments of the function or of the constructor are fields. An argument `rng` is the generator of the scenario.
    """

    def load(self, rng: np.random.Generator) -> Any:
        """The data set that the function or `load` returns, or the one of its arrays."""
        target, arguments = type(self)._target, self._arguments()
        with seeded_generators(int(rng.integers(2**63))):
            loader = target
            if isinstance(target, type):
                loader, arguments = target(**arguments).load, {}
            value = loader(**arguments, **({"rng": rng} if "rng" in inspect.signature(loader).parameters else {}))
        return as_dataset(value, rng)


def as_dataset(value: object, rng: np.random.Generator) -> Any:
    """The data set of what a loader returned; anything that is none and has no arrays stays as it is.

    A mapping has arrays under the names of `_named_arrays.NAMES`. A tuple is (x, y) or (x, y, x_test, y_test), or a
    pair of torch data sets. Without test rows, a stratified fifth is drawn. Labels may be texts.

    >>> data = as_dataset((np.eye(10), np.arange(10) % 2), np.random.default_rng(0))
    >>> data.train.inputs.shape, data.test.inputs.shape
    ((8, 10), (2, 10))
    """
    if isinstance(value, Dataset):
        return value
    if isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_torch_dataset, value)):
        value = [array for rows in value for array in _arrays_of(rows)]
    if isinstance(value, tuple | list) and len(value) in (2, 4) and all(map(_is_array, value)):
        value = dict(zip(("x", "y", "x_test", "y_test"), value, strict=False))
    if not isinstance(value, Mapping):
        return value
    chosen = choose_names([str(name) for name in value], "what load returned", "dataset")
    arrays = {ours: _array(name, value[name]) for ours, name in chosen.items()}
    class_names = _number_texts(arrays)
    if class_names is not None:
        arrays["class_names"] = class_names
    return dataset_of_arrays(arrays, rng, path="dataset")


def _array(name: str, value: Any) -> NDArray[Any]:
    """A list, a tensor, a column or an array as an array."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        message = f"{name} that load returned is {a_kind(value)}, which is no array: {error}; return numbers alike"
        raise ComponentError("dataset", message) from error


def _number_texts(arrays: dict[str, NDArray[Any]]) -> NDArray[Any] | None:
    """Replaces labels that are texts by their numbers in sorted order; returns the texts, None for other labels."""
    names = [name for name in ("targets", "test_targets") if name in arrays]
    for name in names:
        if arrays[name].dtype == object and all(isinstance(item, str) for item in arrays[name].ravel()):
            arrays[name] = arrays[name].astype(str)
    if not all(arrays[name].dtype.kind == "U" and arrays[name].ndim == 1 for name in names):
        return None
    classes = np.unique(np.concatenate([arrays[name] for name in names]))
    for name in names:
        arrays[name] = np.searchsorted(classes, arrays[name])
    return classes


def _is_array(value: object) -> bool:
    return isinstance(value, list | _ArrayLike)


def _is_torch_dataset(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.utils.data.Dataset)


def _arrays_of(rows: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The inputs and targets of a torch data set of pairs."""
    pairs = [rows[i] for i in range(len(rows))]
    if not pairs or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        first = a_kind(pairs[0]) if pairs else "nothing"
        raise ComponentError("dataset", f"an item of the torch Dataset is {first}; it should be a pair (input, target)")
    try:
        return np.stack([np.asarray(x) for x, _ in pairs]), np.asarray([int(y) for _, y in pairs])
    except (ValueError, TypeError) as error:
        message = f"the items of the torch Dataset are not alike: {error}; give inputs of one shape, whole numbers as y"
        raise ComponentError("dataset", message) from error
