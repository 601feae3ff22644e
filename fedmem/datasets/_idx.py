"""The idx format of MNIST: two zero bytes, a type, the number of axes, their lengths, then the values."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_BYTES = 8
"""The code of unsigned bytes, the only type that images and labels come in."""


def parse(content: bytes) -> NDArray[np.uint8]:
    """The array that an idx file of bytes holds."""
    zero, code, axes = struct.unpack_from(">HBB", content)
    assert (zero, code) == (0, _BYTES), "the checksum was compared, so this is an idx file of bytes"
    shape = struct.unpack_from(f">{axes}I", content, 4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


def pack(array: NDArray[np.uint8]) -> bytes:
    """The idx file of an array.

    >>> parse(pack(np.array([[1, 2, 3]], np.uint8))).tolist()
    [[1, 2, 3]]
    """
    header = struct.pack(f">HBB{array.ndim}I", 0, _BYTES, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array).tobytes()
