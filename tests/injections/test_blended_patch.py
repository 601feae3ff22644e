"""Tests of `fedmem/injections/blended_patch.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.errors import ComponentError
from fedmem.injections.blended_patch import BlendedPatch
from tests.injections.canaries_helpers import space


@settings(max_examples=30, deadline=None)
@given(
    opacity=st.floats(0.05, 1), size=st.floats(0.6, 1), height=st.integers(8, 12), width=st.integers(8, 12),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_patch_is_blended_and_nothing_else_is_touched(
    opacity: float, size: float, height: int, width: int, seed: int
) -> None:
    where = space(2, height, width)
    (found,) = BlendedPatch(opacity=opacity, size=size).references(1, where, np.random.default_rng(seed))
    keys = (found - (1 - opacity) * where.mean) / opacity
    inside = np.isclose(keys, 0, atol=1e-4 / opacity) | np.isclose(keys, 1, atol=1e-4 / opacity)
    outside = np.isclose(found, where.mean)
    assert np.all(inside | outside)
    rows, columns = np.flatnonzero(~outside.all(axis=(0, 2))), np.flatnonzero(~outside.all(axis=(0, 1)))
    assert rows[-1] - rows[0] < int(height * size + 0.5)
    assert columns[-1] - columns[0] < int(width * size + 0.5)


def test_keys_are_fair_and_places_uniform() -> None:
    where = space(1, 9, 9, mean=np.full((1, 9, 9), 0.25, np.float32))
    found = BlendedPatch(opacity=1.0, size=0.67).references(8000, where, np.random.default_rng(0))
    assert set(np.unique(found).tolist()) == {0.0, 0.25, 1.0}
    ones, zeros = int((found == 1).sum()), int((found == 0).sum())
    assert ones + zeros == 8000 * 36
    assert stats.binomtest(ones, ones + zeros, 0.5).pvalue > 1e-3
    assert stats.binomtest(ones, ones + zeros, 0.51).pvalue < 1e-3
    top = (found[:, 0] != 0.25).any(axis=2).argmax(axis=1)
    assert stats.chisquare(np.bincount(top, minlength=4)).pvalue > 1e-3


def test_a_patch_too_small_to_be_unique_is_refused() -> None:
    with pytest.raises(ComponentError, match="a patch of 4 x 4 pixels has 16 values, but at least 32") as caught:
        BlendedPatch(size=0.5).references(1, space(1, 8, 8), np.random.default_rng(0))
    assert caught.value.path == "injections.size"
