from __future__ import annotations

import math

import numpy as np
import pytest

from fedmem.modalities.images import ssim
from fedmem.modalities.numbers import nearest_error_of, psnr, squared_errors
from fedmem.modalities.pairing import assign
from tests.lab import digits


@pytest.mark.parametrize("offset", [0.5, 0.1, 0.003])
def test_psnr_of_a_constant_offset(offset: float) -> None:
    truth = np.full((1, 1, 8, 8), 0.25)
    errors = squared_errors((truth + offset).astype(np.float64), truth)
    assert psnr(errors)[0, 0] == pytest.approx(-20 * math.log10(offset), abs=1e-9)


def test_a_permuted_batch_is_put_back_and_capped() -> None:
    truth = digits().take(np.arange(9)).inputs
    order = np.random.default_rng(0).permutation(9)
    errors = squared_errors(truth[order], truth)
    chosen = assign(errors)
    assert order[chosen].tolist() == list(range(9))
    assert psnr(errors[chosen, np.arange(9)]).tolist() == [100.0] * 9


def test_one_exact_image_does_not_cap_the_batch_and_nan_stays() -> None:
    assert psnr(np.array([0.0, 0.01, np.nan])).tolist() == pytest.approx([100.0, 20.0, np.nan], nan_ok=True)


def test_assignment_is_least_in_total_not_greedy() -> None:
    errors = np.array([[0.0, 0.1], [0.2, 1.0]])
    assert assign(errors).tolist() == [1, 0]


def test_fewer_images_than_true_ones_serve_several_but_not_all() -> None:
    errors = np.array([[0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.5]])
    chosen = assign(errors)
    assert np.bincount(chosen).max() == 3, "no image may stand for more than ceil(5 / 2)"
    assert chosen[4] == 1


def test_the_nearest_of_a_gallery_is_that_of_the_errors_to_the_last_bit() -> None:
    everything = digits().inputs
    images, gallery = everything[:7], everything[100:300]
    assert nearest_error_of(images, gallery) == squared_errors(images, gallery).min()
    assert nearest_error_of(images, np.concatenate([gallery, images[3:4]])) == 0.0
    assert math.isnan(nearest_error_of(images, gallery[:0]))


def test_ssim_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    images, truth = rng.random((2, 2, 2, 8, 9), dtype=np.float32)
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(bell, bell) / bell.sum() ** 2
    expected = []
    for pair in zip(images.astype(np.float64), truth.astype(np.float64), strict=True):
        values = []
        for one in zip(*pair, strict=True):
            x, y = (np.pad(channel, 5, mode="reflect") for channel in one)
            for top, left in np.ndindex(8, 9):
                a, b = (part[top : top + 11, left : left + 11] for part in (x, y))
                first, second = (window * a).sum(), (window * b).sum()
                spread = (window * (a - first) ** 2).sum() + (window * (b - second) ** 2).sum()
                shared = (window * (a - first) * (b - second)).sum()
                bright = (2 * first * second + 0.01**2) / (first**2 + second**2 + 0.01**2)
                values.append(bright * (2 * shared + 0.03**2) / (spread + 0.03**2))
        expected.append(np.mean(values))
    assert ssim(images, truth) == pytest.approx(expected, abs=1e-9)
    assert ssim(truth, truth) == pytest.approx([1.0, 1.0])
    assert ssim(1 - truth, truth).max() < 0, "a negative is unlike"
    assert np.isnan(ssim(truth[..., :5], truth[..., :5])).all()
    assert np.isnan(ssim(truth[:, 0, 0], truth[:, 0, 0])).all()
    assert len(ssim(truth[:0], truth[:0])) == 0
