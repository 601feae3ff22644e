from __future__ import annotations

import math

import numpy as np
import pytest

from fedmem.image_metrics import assign, psnr, squared_errors
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
