"""Images of your own, in one folder for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.datasets._arrays import Arrays, assemble
from fedmem.datasets._images import Colours, pixels
from fedmem.errors import ComponentError

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """A folder with a folder for each class, each with at least one image; what starts with a dot is passed over.

    Inputs (n, 1 or 3, size, size) float32 are the pixels divided by 255: each image is turned upright as its camera
    noted, cut to the square in its middle and resized (bilinear). Targets number the classes in sorted order of the
    names of their folders. `ids` number the images in sorted order of their paths, test images after the others.
    Resizing can differ in the last bit between versions of Pillow.

    Fields

    - `path`: the folder, from the folder in which fedmem is started.
    - `test_path`: a folder of the same classes with the test images; empty to draw a test set.
    - `size`: height and width in pixels.
    - `colours`: `grey` has one channel, `rgb` three; transparency is dropped.
    - `rows`: training images, drawn from those there are; null for all.
    - `test`: test images; null for all in `test_path`, or a fifth of the images.

    Guarantees:

    - whatever is drawn is stratified: every class has its exact share of images, rounded up or down;
    - every class has a training image.

    Errors: `ComponentError` if there is no such folder, it has fewer than two classes, a class has no image, a file
    is no image or has more than 8 bits a channel, or `test_path` has other classes.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for label in ("cat", "dog"):
    ...         Path(folder, label).mkdir()
    ...         for number in range(5):
    ...             Image.new("L", (20, 30)).save(f"{folder}/{label}/{number}.png")
    ...     data = ImageFolder(path=folder, size=8).load(np.random.default_rng(0))
    >>> data.train.inputs.shape, data.test.targets.tolist()
    ((8, 1, 8, 8), [0, 1])
    """

    path: str = "images"
    test_path: str = ""
    size: Annotated[int, annotated_types.Ge(4)] = 28
    colours: Colours = "grey"
    rows: Annotated[int, annotated_types.Ge(1)] | None = None
    test: Annotated[int, annotated_types.Ge(1)] | None = None

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the images, and draw what has to be drawn."""
        classes = _classes(self.path, "dataset.path")
        inputs, labels = self._load_images(self.path, classes, "dataset.path")
        held_out = None
        if self.test_path:
            others = _classes(self.test_path, "dataset.test_path")
            if others != classes:
                message = (
                    f"{self.test_path} has the classes {', '.join(others)}, but {self.path} has {', '.join(classes)}; "
                    "give both the same folders"
                )
                raise ComponentError("dataset.test_path", message)
            held_out = self._load_images(self.test_path, classes, "dataset.test_path")
        arrays = Arrays(inputs=inputs, labels=labels, held_out=held_out)
        return assemble(arrays, rng, path="dataset.path", rows=self.rows, test=self.test)

    def input_files(self) -> tuple[Path, ...]:
        """The images of all classes; a folder stands for itself where it is missing."""
        files: list[Path] = []
        for place in filter(None, (self.path, self.test_path)):
            root = Path(place).expanduser()
            folders = (
                [entry for entry in root.iterdir() if entry.is_dir() and _is_visible(entry)] if root.is_dir() else []
            )
            files += [file for folder in folders for file in _files(folder)] or [root]
        return tuple(files)

    def _load_images(self, place: str, classes: list[str], key: str) -> tuple[NDArray[np.float32], IntArray]:
        """All images of a folder and their classes."""
        from PIL import Image, UnidentifiedImageError

        arrays: list[NDArray[Any]] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            folder = Path(place).expanduser() / name
            files = _files(folder)
            if not files:
                message = f"class {name!r} has no image ({', '.join(_SUFFIXES)}) in {folder}; add some, or remove it"
                raise ComponentError(key, message)
            for file in files:
                try:
                    with Image.open(file) as image:
                        arrays.append(pixels(image, self.size, self.colours, key, str(file)))
                except (UnidentifiedImageError, OSError, SyntaxError) as error:
                    raise ComponentError(key, f"{file} cannot be read as an image ({error}); remove it") from error
                labels.append(label)
        return np.stack(arrays).astype(np.float32) / np.float32(255), np.array(labels, dtype=np.int64)


def _classes(place: str, key: str) -> list[str]:
    """The names of the folders in a folder, sorted."""
    root = Path(place).expanduser()
    if not root.is_dir():
        raise ComponentError(key, f"there is no folder {root} (looked for from {Path.cwd()})")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and _is_visible(entry))
    if len(names) < 2:
        message = f"{root} has {len(names)} folders, but should have one for each of at least two classes"
        raise ComponentError(key, message)
    return names


def _files(folder: Path) -> list[Path]:
    """The images in the folder of a class, sorted."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES and _is_visible(file))


def _is_visible(entry: Path) -> bool:
    return not entry.name.startswith(".")
