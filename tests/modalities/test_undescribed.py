"""Tests of `fedmem/modalities/undescribed.py`."""

from __future__ import annotations

import pytest

from fedmem.modalities.undescribed import modality_of_shape


@pytest.mark.parametrize(
    ("shape", "kind", "axes"), [((20,), "tables", None), ((1, 8, 8), "images", (8, 8)), ((3, 4, 6), "images", (4, 6))]
)
def test_one_axis_is_a_table_and_more_are_an_image(shape: tuple[int, ...], kind: str, axes: object) -> None:
    found = modality_of_shape(shape)
    assert found.kind == kind
    if axes is not None:
        assert tuple(found.grid(shape)) == axes
