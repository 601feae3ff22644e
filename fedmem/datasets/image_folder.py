"""Images of your own, in one folder for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.datasets._arrays import Arrays, assemble, owners_of
from fedmem.datasets._image_tree import ImageFile, all_files, clients_of, image_files
from fedmem.datasets._images import Colours, pixels
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """A folder with a folder for each class, `path/class/image.png`, or for each client, `path/client/class/image.png`.

    Inputs (n, 1 or 3, size, size) float32 are the pixels divided by 255. Each image is turned upright as its camera
    noted, cut to the square in its middle and resized (bilinear). Targets number the classes in sorted order of the
    names of their folders, which are the class names. `ids` number the images in sorted order of their paths, test
    images after the others; `columns` has the path of each, `file`. Files that start with a dot, Thumbs.db, desktop.ini
    and __MACOSX are passed over; any other file that is no image is an error. `fedmem check` says which colours and
    sizes the images had. Resizing can differ in the last bit between versions of Pillow.

    Fields

    - `path`: the folder, from the folder in which fedmem is started.
    - `test_path`: a folder of the same classes with the test images; empty to draw a test set.
    - `clients`: `folder` if the first folders are the natural owners. Or a CSV or parquet file with the columns `file`
      (path below the folder, such as `cat/1.png`) and `client`; empty for no owners.
    - `size`: height and width in pixels.
    - `colours`: `grey` has one channel, `rgb` three; transparency is dropped.
    - `rows`: training images, drawn from those there are; null for all.
    - `test`: test images; null for all in `test_path`, or a fifth of the images.

    Guarantees:

    - whatever is drawn is stratified: every class has its exact share of images, rounded up or down;
    - every class has a training image.

    Errors: `ComponentError` that names the file or folder, if there is no such folder, it has fewer than two classes,
    or a class has no image. Also if a file is no image, is cut off or has more than 8 bits a channel. Also if
    `test_path` has other classes, or an image has no client.

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
    clients: str = ""
    size: Annotated[int, annotated_types.Ge(4)] = 28
    colours: Colours = "grey"
    rows: Annotated[int, annotated_types.Ge(1)] | None = None
    test: Annotated[int, annotated_types.Ge(1)] | None = None

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the images, and draw what has to be drawn."""
        images = self._files(self.path, "dataset.path")
        classes = sorted({image.label for image in images})
        owners, owner_names = self._owners(images)
        inputs, labels, decisions = self._load_images(images, classes, "dataset.path")
        held_out = None
        if self.test_path:
            test_images = self._files(self.test_path, "dataset.test_path")
            others = sorted({image.label for image in test_images})
            if others != classes:
                message = (
                    f"{self.test_path} has the classes {', '.join(others)}, but {self.path} has {', '.join(classes)}; "
                    "give both the same folders"
                )
                raise ComponentError("dataset.test_path", message)
            test_inputs, test_labels, more = self._load_images(test_images, classes, "dataset.test_path")
            held_out, decisions = (test_inputs, test_labels), [*decisions, *more]
        arrays = Arrays(
            inputs=inputs,
            labels=labels,
            held_out=held_out,
            owners=owners,
            owner_names=owner_names,
            class_names=tuple(classes),
            columns={"file": np.array([image.name for image in images])},
            decisions=tuple(decisions),
        )
        return assemble(arrays, rng, path="dataset.path", rows=self.rows, test=self.test)

    def input_files(self) -> tuple[Path, ...]:
        """Every file of the folders, and the table of clients."""
        places = filter(None, (self.path, self.test_path))
        return (*(file for place in places for file in all_files(place)), *self._table())

    def _table(self) -> tuple[Path, ...]:
        """The table of clients, where there is one."""
        return () if self.clients in ("", "folder") else (Path(self.clients).expanduser(),)

    def _files(self, place: str, key: str) -> list[ImageFile]:
        return image_files(place, key, by_client=self.clients == "folder", skip=self._table())

    def _owners(self, images: Sequence[ImageFile]) -> tuple[IntArray | None, tuple[str, ...]]:
        """The number of the client of each image, and the names of the clients."""
        if not self.clients:
            return None, ()
        by_folder = self.clients == "folder"
        names = [image.client for image in images] if by_folder else clients_of(images, self.clients)
        return owners_of(np.array(names), len(images), "clients", "dataset.clients")

    def _load_images(
        self, images: Sequence[ImageFile], classes: Sequence[str], key: str
    ) -> tuple[NDArray[np.float32], IntArray, list[str]]:
        """All images and their classes, and what they were before."""
        from PIL import Image, UnidentifiedImageError

        arrays: list[NDArray[Any]] = []
        modes: Counter[str] = Counter()
        sizes: list[tuple[int, int]] = []
        for image_file in images:
            file = image_file.file
            try:
                with Image.open(file) as image:
                    arrays.append(pixels(image, self.size, self.colours, key, str(file)))
                    modes[_MODES.get(image.mode, image.mode)] += 1
                    sizes.append(image.size)
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                message = f"{file} cannot be read as an image ({error}); mend it, or remove it"
                raise ComponentError(key, message) from error
        labels = np.array([classes.index(image.label) for image in images], dtype=np.int64)
        inputs = np.stack(arrays).astype(np.float32) / np.float32(255)
        return inputs, labels, [self._describe(modes, sizes)]

    def _describe(self, modes: Mapping[str, int], sizes: Sequence[tuple[int, int]]) -> str:
        """The properties of the images, and how they were changed."""
        colours = ", ".join(f"{count} {mode}" for mode, count in sorted(modes.items()))
        widths, heights = zip(*sizes, strict=True)
        small = sum(min(size) < self.size for size in sizes)
        text = (
            f"images: {colours}; {min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} high; made "
            f"{self.colours}, cut to the square in the middle and resized to {self.size} × {self.size}"
        )
        return text + (f"; {small} smaller ones are enlarged" if small else "")


_MODES = {"L": "grey", "1": "black and white", "RGB": "rgb", "RGBA": "rgb with transparency", "P": "with a palette"}
"""Names of the colours of images, for people."""
