"""Tests of `fedmem/modalities/numbers.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmem.modalities.numbers import nearest_error_of, psnr, squared_errors
from tests.lab import digits


@pytest.mark.parametrize("offset", [0.5, 0.1, 0.003])
def test_psnr_of_a_constant_offset(offset: float) -> None:
    truth = np.full((1, 1, 8, 8), 0.25)
    errors = squared_errors((truth + offset).astype(np.float64), truth)
    assert psnr(errors)[0, 0] == pytest.approx(-20 * math.log10(offset), abs=1e-9)


def test_one_exact_image_does_not_cap_the_batch_and_nan_stays() -> None:
    assert psnr(np.array([0.0, 0.01, np.nan])).tolist() == pytest.approx([100.0, 20.0, np.nan], nan_ok=True)


def test_nearest_of_a_gallery_is_the_minimum_squared_error() -> None:
    everything = digits().inputs
    images, gallery = everything[:7], everything[100:300]
    assert nearest_error_of(images, gallery) == squared_errors(images, gallery).min()
    assert nearest_error_of(images, np.concatenate([gallery, images[3:4]])) == 0.0
    assert math.isnan(nearest_error_of(images, gallery[:0]))
