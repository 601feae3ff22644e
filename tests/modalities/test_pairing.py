"""Tests of `fedmem/modalities/pairing.py`."""

from __future__ import annotations

import numpy as np

from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from tests.lab import digits


def test_a_permuted_batch_is_put_back_and_capped() -> None:
    truth = digits().take(np.arange(9)).inputs
    order = np.random.default_rng(0).permutation(9)
    errors = squared_errors(truth[order], truth)
    chosen = assign(errors)
    assert order[chosen].tolist() == list(range(9))
    assert psnr(errors[chosen, np.arange(9)]).tolist() == [100.0] * 9


def test_assignment_minimises_the_total_error() -> None:
    errors = np.array([[0.0, 0.1], [0.2, 1.0]])
    assert assign(errors).tolist() == [1, 0]


def test_fewer_images_than_true_ones_serve_several_but_not_all() -> None:
    errors = np.array([[0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.5]])
    chosen = assign(errors)
    assert np.bincount(chosen).max() == 3, "no image may stand for more than ceil(5 / 2)"
    assert chosen[4] == 1
