"""Tests of `fedmem/partitions/feature_skew.py`."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from scipy import ndimage

from fedmem.contracts.data import FeatureShift
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.feature_skew import FeatureSkew


def images(count: int = 3, shape: tuple[int, ...] = (2, 7, 7)) -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape), dtype=np.float32)


def test_feature_skew_shares_rows_out_as_its_base() -> None:
    data = Synthetic(rows=200).load(np.random.default_rng(0))
    base = Dirichlet(alpha=0.3, min_rows=1)
    skewed = FeatureSkew(base=base)
    assert isinstance(skewed, FeatureShift)
    assert not isinstance(base, FeatureShift)
    for one, other in zip(
        *(p.assign(data, np.arange(200), 4, np.random.default_rng(5)) for p in (base, skewed)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_quarter_rotations_move_pixels_exactly() -> None:
    for client in range(4):
        seen = FeatureSkew(strength=1.0).shift(client, 4, images())
        np.testing.assert_array_equal(seen, np.rot90(images(), client, axes=(-2, -1)))


@pytest.mark.parametrize("client", [1, 3, 6])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9), (1, 1, 1)])
def test_rotation_is_that_of_scipy(client: int, shape: tuple[int, ...]) -> None:
    def rotated(degrees: float) -> np.ndarray:
        exact = images(shape=shape).astype(np.float64)
        return ndimage.rotate(exact, degrees, axes=(-2, -1), reshape=False, order=1, mode="grid-constant")

    seen = FeatureSkew(strength=0.6).shift(client, 7, images(shape=shape))
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, rotated(360 * 0.6 * client / 7), atol=1e-6)
    # The other way round it is another image.
    assert shape == (1, 1, 1) or not np.allclose(seen, rotated(-360 * 0.6 * client / 7), atol=1e-2)


def test_contrast_shrinks_towards_the_middle() -> None:
    seen = FeatureSkew(transform="contrast", strength=1.0).shift(3, 4, np.array([[[[0.0, 0.5, 1.0]]]], np.float32))
    np.testing.assert_allclose(seen, [[[[0.375, 0.5, 0.625]]]], atol=1e-7)


@pytest.mark.parametrize("transform", ["rotation", "contrast"])
def test_shifted_images_stay_images(transform: Literal["rotation", "contrast"]) -> None:
    skew = FeatureSkew(transform=transform, strength=0.9)
    given = images()
    spans = []
    for client in range(5):
        seen = skew.shift(client, 5, given)
        assert seen.dtype == np.float32
        assert seen.shape == given.shape
        assert 0 <= seen.min() <= seen.max() <= 1
        # Row by row, so that what is beside an image does not matter.
        np.testing.assert_array_equal(seen[1:2], skew.shift(client, 5, given[1:2]))
        spans.append(np.abs(seen - given).mean())
    assert spans[0] == 0 < min(spans[1:])
    np.testing.assert_array_equal(given, images())
    assert skew.shift(2, 5, given[:0]).shape == (0, 2, 7, 7)


def test_feature_skew_wants_images() -> None:
    data = Synthetic(rows=50, shape=(20,)).load(np.random.default_rng(0))
    with pytest.raises(ComponentError, match=r"inputs have shape \(20,\); choose another data set") as caught:
        FeatureSkew().assign(data, np.arange(50), 2, np.random.default_rng(0))
    assert caught.value.path == "partition.kind"
