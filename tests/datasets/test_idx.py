"""Tests of `fedmem/datasets/_idx.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.datasets._idx import pack, parse


def test_bytes_of_a_file_follow_the_published_format() -> None:
    # two zero bytes, type 8 (unsigned byte), two axes of 2 and 3, then the values by row
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 13, 14, 255])
    expected = np.array([[10, 11, 12], [13, 14, 255]], np.uint8)
    np.testing.assert_array_equal(parse(content), expected)
    assert pack(expected) == content
    assert pack(np.asfortranarray(expected)) == content


def test_another_type_code_is_refused() -> None:
    with pytest.raises(AssertionError, match="idx file of bytes"):
        parse(bytes([0, 0, 13, 1, 0, 0, 0, 0]))
