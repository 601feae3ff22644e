"""Any image classification data set of torchvision, by the name of its class; needs the extra `torchvision`."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.data import Dataset
from fedmem.contracts.flower_strategy_adapter import parameters
from fedmem.datasets._arrays import Arrays, assemble, number_labels
from fedmem.datasets._images import Colours, pixels, stack_images
from fedmem.errors import ComponentError
from fedmem.fetched.files import cache_folder
from fedmem.wording import choices


@dataclass(frozen=True, kw_only=True)
class Torchvision:
    """Training and test part of a class of `torchvision.datasets`, such as MNIST, CIFAR10, SVHN or EMNIST.

    Inputs (n, 1 or 3, height, width) float32 are the pixels divided by 255. Targets number the labels that occur in
    either part, in order: EMNIST's letters 1..26 become 0..25. `ids` number the rows of the training part, then those
    of the test part. Works with every class that takes `train`, or a `split`, and gives an image with one label.
    Whether the files are the published ones is checked by torchvision, for most classes only when it downloads them.

    Fields

    - `name`: the class.
    - `root`: the folder that torchvision keeps its files in; empty for `torchvision` in the cache folder of fedmem.
    - `download`: let torchvision download missing files.
    - `split`: for a class that has several versions of its data besides `train`, the version, such as `balanced` of
      EMNIST.
    - `test_split`: the name of the test part in a class without `train`, such as `val`.
    - `size`: cut images to their middle square and resize them to this height and width; null to leave them.
    - `colours`: `grey` has one channel, `rgb` three.
    - `rows`: training rows, drawn from those there are; null for all.
    - `test`: test rows, drawn from those there are; null for all.

    Guarantees:

    - the split of the class is kept: no test row is ever trained on;
    - a smaller draw is stratified: every class has its exact share of rows, rounded up or down;
    - nothing is downloaded unless `download` is true.

    Errors: `ComponentError` if torchvision or the class is missing, or the files are not there. Also if the class has
    no test part or no whole number as label, or the images differ in size and `size` is not given.

    >>> Torchvision(name="CIFAR10", colours="rgb").download
    False

    Reference: TorchVision maintainers and contributors (2016), TorchVision.
    """

    name: str = "MNIST"
    root: str = ""
    download: bool = False
    split: str = ""
    test_split: str = "test"
    size: Annotated[int, annotated_types.Ge(4)] | None = None
    colours: Colours = "grey"
    rows: Annotated[int, annotated_types.Ge(1)] | None = None
    test: Annotated[int, annotated_types.Ge(1)] | None = None

    def load(self, rng: np.random.Generator) -> Dataset:
        """Let torchvision read both parts, and draw the rows if not all are wanted."""
        train, test = self._part("train"), self._part(self.test_split)
        labels, class_names = number_labels([train[1], test[1]], f"the label of {self.name}", "dataset.name")
        held_out = (test[0], labels[1])
        arrays = Arrays(inputs=train[0], labels=labels[0], held_out=held_out, class_names=class_names)
        return assemble(arrays, rng, path="dataset.name", rows=self.rows, test=self.test)

    def input_files(self) -> tuple[Path, ...]:
        """The files in the folder of the class; all files in `root` where the class does not name its folder."""
        folder = self._root()
        try:
            cls = self._class()
        except ComponentError:
            return (folder,)
        base = getattr(cls, "base_folder", None)
        if isinstance(base, str):
            folder /= base
        elif hasattr(cls, "raw_folder"):
            folder /= self.name
        return tuple(sorted(file for file in folder.rglob("*") if file.is_file())) or (folder,)

    def _root(self) -> Path:
        return Path(self.root).expanduser() if self.root else cache_folder() / "torchvision"

    def _part(self, part: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """The images and labels of one part."""
        cls = self._class()
        try:
            dataset = cls(**self._arguments(cls, part))
        except (RuntimeError, ValueError, OSError) as error:
            remedy = (
                "check the network, or put its files there"
                if self.download
                else "set download to true, or put its files there"
            )
            message = f"{self.name} cannot be read: {error}; {remedy}"
            raise ComponentError("dataset.root", message) from error
        arrays, labels = [], []
        for position in range(len(dataset)):
            image, label = dataset[position]
            arrays.append(pixels(image, self.size, self.colours, "dataset.name", f"image {position}"))
            labels.append(label)
        return stack_images(arrays, "dataset.size").astype(np.float32) / np.float32(255), np.asarray(labels)

    def _class(self) -> Any:
        try:
            module = importlib.import_module("torchvision.datasets")
        except ModuleNotFoundError as error:
            message = "torchvision is not installed; run: pip install 'fedmem[torchvision]'"
            raise ComponentError("dataset.kind", message) from error
        names = [name for name in module.__all__ if inspect.isclass(getattr(module, name))]
        if self.name not in names:
            message = f"torchvision has no data set {self.name!r}{choices(self.name, names)}"
            raise ComponentError("dataset.name", message)
        return getattr(module, self.name)

    def _arguments(self, cls: Any, part: str) -> dict[str, Any]:
        """The arguments with which this class gives one part."""
        names, _ = parameters(cls)
        arguments: dict[str, Any] = {"root": str(self._root())}
        if "download" in names:
            arguments["download"] = self.download
        if "train" in names:
            arguments["train"] = part == "train"
            if self.split:
                arguments["split"] = self.split
            elif names.get("split"):
                raise ComponentError("dataset.split", f"{self.name} has several versions; name one, such as balanced")
        elif "split" in names and not self.split:
            arguments["split"] = part
        else:
            message = f"{self.name} has no training and test part to choose by `train` or `split`; use another class"
            raise ComponentError("dataset.split" if self.split else "dataset.name", message)
        return arguments
