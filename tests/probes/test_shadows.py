"""Tests of `fedmem/probes/_shadows.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import FloatArray
from fedmem.probes._shadows import Reconstructor, distances, flat, is_nearest


def test_parameters_are_flat_without_whole_numbers() -> None:
    params = {"b": torch.ones(1, 2), "count": torch.tensor(3), "a": torch.zeros(1)}
    assert flat(params).tolist() == [1.0, 1.0, 0.0]
    assert flat({}).shape == (0,)


def test_nearest_mean_is_the_most_probable_candidate() -> None:
    rng = np.random.default_rng(0)
    means = rng.standard_normal((5, 1, 7))
    right = []
    for _ in range(500):
        truth = int(rng.integers(5))
        real = means[truth, 0] + 2.0 * rng.standard_normal(7)
        log_density = -np.square(real - means[:, 0]).sum(axis=1)
        nearest = [is_nearest(distances(real, means), place) for place in range(5)]
        assert int(np.argmax(nearest)) == int(np.argmax(log_density))
        right.append(nearest[truth])
    assert 0.3 < np.mean(right) < 1


def test_chance_is_one_over_the_candidates_without_any_effect() -> None:
    rng = np.random.default_rng(1)
    right = [
        is_nearest(distances(rng.standard_normal(6), rng.standard_normal((4, 2, 6))), int(rng.integers(4)))
        for _ in range(3000)
    ]
    assert np.mean(right) == pytest.approx(0.25, abs=0.03)


def test_ties_single_candidates_and_diverged_models() -> None:
    real, one = np.zeros(2), np.ones((1, 1, 2))
    assert is_nearest(distances(real, np.concatenate([one, one])), 0) == 0, "a tie identifies nothing"
    assert math.isnan(is_nearest(distances(real, one), 0))
    assert math.isnan(is_nearest(distances(np.array([np.nan, 0.0]), np.concatenate([one, one])), 0))
    diverged = np.concatenate([one, np.full((1, 1, 2), np.inf)])
    assert (is_nearest(distances(real, diverged), 0), is_nearest(distances(real, diverged), 1)) == (1.0, 0.0)


def linear(rows: int, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows, the models that depend linearly on them, and the map; the mean of the models is far from zero."""
    rng = np.random.default_rng(seed)
    inputs, weights = rng.random((rows, 5)), rng.standard_normal((5, 30))
    return inputs, 10.0 + 0.01 * inputs @ weights, weights


def test_rows_that_models_depend_on_linearly_are_recovered() -> None:
    inputs, models, _ = linear(40)
    fitted = Reconstructor.fit(models[:39], inputs[:39])
    assert fitted is not None
    np.testing.assert_allclose(fitted.predict(models[39]), inputs[39], atol=1e-6)


def test_recovery_fails_where_the_scaler_is_that_of_the_target() -> None:
    inputs, models, _ = linear(40)
    fitted = Reconstructor.fit(models[:39], inputs[:39])
    assert fitted is not None
    leaked = Reconstructor(models[39], fitted.scale, fitted.mean, fitted.weights)
    assert np.abs(leaked.predict(models[39]) - inputs[39]).max() > 0.05


def test_penalty_comes_from_the_error_of_each_row_left_out() -> None:
    rng = np.random.default_rng(2)
    inputs, models, _ = linear(30)
    noisy = models + rng.standard_normal(models.shape)  # a hundred times the signal
    fitted = Reconstructor.fit(noisy[:29], inputs[:29])
    assert fitted is not None
    guess = fitted.predict(noisy[29])
    assert np.abs(guess - inputs[:29].mean(axis=0)).max() < 0.2, "without signal the guess is the mean row"


def test_degenerate_shadow_models_have_a_decided_answer() -> None:
    inputs, models, _ = linear(6)
    assert Reconstructor.fit(models[:2], inputs[:2]) is None
    same = Reconstructor.fit(np.ones((6, 3)), inputs)
    assert same is not None
    np.testing.assert_allclose(same.predict(np.zeros(3)), inputs.mean(axis=0))
    models[0] = np.nan
    fitted = Reconstructor.fit(models, inputs)
    assert fitted is not None
    np.testing.assert_allclose(fitted.mean, inputs[1:].mean(axis=0))
    assert np.isnan(fitted.predict(np.full(30, np.nan))).all()
