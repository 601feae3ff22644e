"""Tests of `fedmem/injections/_patches.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.data import Dataset, Examples, Space
from fedmem.errors import ComponentError
from fedmem.injections._patches import patch, sides
from fedmem.modalities.images import Images
from fedmem.modalities.tables import Tables


def space(*shape: int) -> Space:
    rows = Examples(inputs=np.zeros((2, *shape), np.float32), targets=np.arange(2), ids=np.arange(2))
    modality = Tables() if len(shape) == 1 else Images()
    return Space.of(Dataset(train=rows, test=rows, num_classes=2, modality=modality))


def test_sides_are_height_and_width_of_any_channels() -> None:
    assert sides(space(3, 10, 20), "x") == (10, 20)


@pytest.mark.parametrize(("share", "expected"), [(0.25, (3, 5)), (0.01, (1, 1)), (1.0, (10, 20)), (0.24, (2, 5))])
def test_patch_is_a_rounded_share_of_both_sides(share: float, expected: tuple[int, int]) -> None:
    assert patch(space(1, 10, 20), "x", share) == expected


def test_inputs_that_are_no_images_are_refused_with_a_fix() -> None:
    with pytest.raises(ComponentError, match=r"unique_feature .* shape \(8,\).*use"):
        sides(space(8), "unique_feature")
