"""Images of any size and mode become arrays of one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Colours = Literal["grey", "rgb"]


def pixels(image: PilImage, size: int | None, colours: Colours, path: str, name: str) -> NDArray[np.uint8]:
    """(1 or 3, height, width) bytes: upright, cut to the middle square and resized to size x size, None for as it is.

    `name` is the name of the image in messages, `path` the YAML key that led to it.
    """
    from PIL import Image, ImageOps
    from PIL.Image import Resampling

    if not isinstance(image, Image.Image):
        raise ComponentError(path, f"{name} is no image but {type(image).__name__}; choose a data set of images")
    if image.mode[0] in "IF":
        # Pillow would cut off what exceeds a byte, without a word.
        message = f"{name} has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits first"
        raise ComponentError(path, message)
    upright = ImageOps.exif_transpose(image).convert("L" if colours == "grey" else "RGB")
    if size is not None and upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), method=Resampling.BILINEAR)
    array = np.asarray(upright, dtype=np.uint8)
    return array[None] if colours == "grey" else array.transpose(2, 0, 1)


def stack_images(arrays: list[Any], path: str) -> NDArray[Any]:
    """One array of many, which must be of one shape."""
    shapes = sorted({np.shape(array) for array in arrays})
    if len(shapes) > 1:
        some = ", ".join(map(str, shapes[:3]))
        raise ComponentError(
            path, f"the inputs have {len(shapes)} shapes, such as {some}; give `size`, or make them equal"
        )
    return np.stack(arrays)
