"""Any data set of the Hugging Face hub with a column of inputs and one of labels; needs the extra `hub`."""

from __future__ import annotations

import glob
import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.datasets._arrays import Arrays, assemble, inputs_of, number_labels, owners_of
from fedmem.datasets._images import Colours, pixels, stack_images
from fedmem.errors import ComponentError
from fedmem.fetched.files import cache_folder
from fedmem.wording import choices

_FORMATS = ("parquet", "csv", "json", "arrow")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """The data set of `datasets.load_dataset` for a name, federated sets included: FEMNIST is `flwrlabs/femnist`.

    Inputs are float32 in [0, 1]: images (n, 1 or 3, height, width), which are divided by 255, or lists of numbers
    of one shape. Targets number the labels that occur, in sorted order, be they numbers or text. `ids` number the rows
    of the training split, then those of the test split. Columns other than those named here are not read. Downloaded
    data are found again without a network in the cache folder of fedmem.

    Fields

    - `name`: the data set on the hub, or a format of local files: parquet, csv, json or arrow.
    - `files`: local files of that format for the training split; empty for a data set on the hub.
    - `test_files`: local files for the test split; empty to draw a test set.
    - `subset`: which version of a data set that has several; empty for its default.
    - `revision`: a commit or tag of the data set, which makes sure that it stays the same; empty for the newest.
    - `train_split`: the split to train on.
    - `test_split`: the test split; empty to draw a test set from the training split.
    - `inputs`: the column of images or lists of numbers.
    - `targets`: the column of labels.
    - `clients`: the column of natural owners, such as `writer_id` of FEMNIST; empty for none.
    - `size`: cut images to their middle square and resize them to this height and width; null to leave them.
    - `colours`: of images: `grey` has one channel, `rgb` three.
    - `rows`: training rows, drawn from those there are; null for all.
    - `test`: test rows; null for all of the test split, or a fifth of the rows without one.

    Guarantees:

    - no row of the test split is ever trained on;
    - whatever is drawn is stratified: every class has its exact share of rows, rounded up or down.

    Errors: `ComponentError` if the package is missing, or the hub cannot be reached or has no such data set. Also if a
    split or column is missing (with those that there are), or inputs or labels are not as above.

    >>> Hub(name="flwrlabs/femnist", targets="character", clients="writer_id", test_split="").colours
    'grey'

    Reference: Lhoest et al. (2021), Datasets: a community library for natural language processing.
    """

    name: str = "ylecun/mnist"
    files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    subset: str = ""
    revision: str = ""
    train_split: str = "train"
    test_split: str = "test"
    inputs: str = "image"
    targets: str = "label"
    clients: str = ""
    size: Annotated[int, annotated_types.Ge(4)] | None = None
    colours: Colours = "grey"
    rows: Annotated[int, annotated_types.Ge(1)] | None = None
    test: Annotated[int, annotated_types.Ge(1)] | None = None

    def load(self, rng: np.random.Generator) -> Dataset:
        """Load the splits, read their columns, and draw what has to be drawn."""
        splits = self._splits()
        train = splits[0]
        inputs = [self._inputs(split) for split in splits]
        labels, class_names = number_labels(
            [_column(split, self.targets, "targets") for split in splits], self.targets, "dataset.targets"
        )
        owners: IntArray | None = None
        names: tuple[str, ...] = ()
        if self.clients:
            values = _column(train, self.clients, "clients")
            owners, names = owners_of(values, len(inputs[0]), self.clients, "dataset.clients")
        held_out = (inputs[1], labels[1]) if len(splits) > 1 else None
        arrays = Arrays(
            inputs=inputs[0],
            labels=labels[0],
            held_out=held_out,
            owners=owners,
            owner_names=names,
            class_names=_class_names(train, self.targets, class_names),
        )
        return assemble(arrays, rng, path="dataset.targets", rows=self.rows, test=self.test)

    def input_files(self) -> tuple[Path, ...]:
        """The local files, or what the cache folder holds of a data set of the hub."""
        if self.files:
            return tuple(file for name in (*self.files, *self.test_files) for file in _local_files(name))
        folder = cache_folder() / "hub"
        entries = folder.iterdir() if folder.is_dir() else ()
        files = [
            file
            for entry in entries
            if _alphanumeric(entry.name) == _alphanumeric(self.name)
            for file in entry.rglob("*.arrow")
        ]
        if self.subset:
            files = [file for file in files if self.subset in file.parts]
        pinned = [file for file in files if self.revision in file.parts]
        return tuple(sorted(pinned or files)) or (folder / self.name,)

    def _cache(self) -> Path:
        """Where the library stores what it read; local files by content, since it compares nothing but their times."""
        folder = cache_folder() / "hub"
        if not self.files:
            return folder
        digest = hashlib.sha256()
        for file in self.input_files():
            digest.update(f"{file}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b"")
        return folder / "local" / digest.hexdigest()[:16]

    def _splits(self) -> list[Any]:
        """The training split, and the test split if there is one."""
        try:
            library = importlib.import_module("datasets")
        except ModuleNotFoundError as error:
            message = "the package datasets is not installed; run: pip install 'fedmem[hub]'"
            raise ComponentError("dataset.kind", message) from error
        arguments: dict[str, Any] = {"cache_dir": str(self._cache())}
        if self.subset:
            arguments["name"] = self.subset
        if self.revision:
            arguments["revision"] = self.revision
        names = [self.train_split, self.test_split] if self.test_split else [self.train_split]
        if self.files:
            if self.name not in _FORMATS:
                message = f"{self.name!r} is no format of local files{choices(self.name, _FORMATS)}"
                raise ComponentError("dataset.name", message)
            arguments["data_files"] = {self.train_split: list(self.files)}
            names = [self.train_split]
            if self.test_files:
                test = self.test_split or "test"
                arguments["data_files"][test] = list(self.test_files)
                names = [self.train_split, test]
        elif self.test_files:
            raise ComponentError("dataset.files", "is empty, but test_files is not; name the training files as well")
        try:
            splits = library.load_dataset(self.name, **arguments)
        except Exception as error:
            # The library, and what it calls, fails in many ways; whatever it is, it is what the user has to mend.
            cause = f"{type(error).__name__}: {error}"
            message = f"{self.name!r} cannot be loaded ({cause}); check the name, and whether the hub can be reached"
            raise ComponentError("dataset.files" if self.files else "dataset.name", message) from error
        for key, name in zip(("train_split", "test_split"), names, strict=False):
            if name not in splits:
                remedy = ", or leave it empty to draw a test set" if key == "test_split" else ""
                message = f"{self.name} has no split {name!r}{choices(name, splits)}{remedy}"
                raise ComponentError(f"dataset.{key}", message)
        return [splits[name] for name in names]

    def _inputs(self, split: Any) -> NDArray[np.float32]:
        """The column of inputs as one array in [0, 1]."""
        _demand(split, self.inputs, "inputs")
        column = split[self.inputs]
        first = column[0] if len(column) else None
        if hasattr(first, "convert"):
            images = [
                pixels(image, self.size, self.colours, "dataset.inputs", f"{self.inputs} of row {row}")
                for row, image in enumerate(column)
            ]
            return stack_images(images, "dataset.size").astype(np.float32) / np.float32(255)
        return inputs_of(stack_images(list(column), "dataset.inputs"), f"column {self.inputs!r}", "dataset.inputs")


def _class_names(split: Any, column: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes: the names in the data set where it has some, else their values."""
    from datasets import ClassLabel

    feature = split.features[column]
    if not isinstance(feature, ClassLabel):
        return values
    return tuple(str(feature.names[int(value)]) for value in values or range(len(feature.names)))


def _local_files(name: str) -> list[Path]:
    """The files that a name or a pattern stands for; an address on the web stands for none."""
    if "://" in name:
        return []
    return [Path(path) for path in sorted(glob.glob(str(Path(name).expanduser()), recursive=True))] or [Path(name)]


def _alphanumeric(name: str) -> str:
    """The letters and digits of a name; what the cache makes of it differs in nothing else."""
    return "".join(character for character in name.lower() if character.isalnum())


def _demand(split: Any, name: str, key: str) -> None:
    if name not in split.column_names:
        message = f"there is no column {name!r}{choices(name, split.column_names)}"
        raise ComponentError(f"dataset.{key}", message)


def _column(split: Any, name: str, key: str) -> NDArray[Any]:
    """A column of numbers or text."""
    _demand(split, name, key)
    values: Sequence[Any] = list(split[name])
    return np.asarray(values)
