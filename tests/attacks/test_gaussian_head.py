"""Tests of `fedmem/attacks/_gaussian_head.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from fedmem.attacks._gaussian_head import GaussianHead


def test_calibration_needs_the_error_of_the_fit() -> None:
    """The bare (value - mean) / spread exceeds its 1 % quantile twice as often as that with so few rows."""
    rng, bare, whole = np.random.default_rng(0), [], []
    for _ in range(20):
        rows = np.concatenate([np.ones((600, 1)), rng.normal(size=(600, 25))], axis=1)
        values = rng.normal(size=600)
        head = GaussianHead.fit(rows[:200], values[:200], 1.0)
        whole.append((head.standardise(rows[200:], values[200:]) > norm.isf(0.01)).mean())
        spread = np.exp(rows[200:] @ head.log_variance_weights / 2)
        bare.append(((values[200:] - rows[200:] @ head.mean_weights) / spread > norm.isf(0.01)).mean())
    assert np.mean(whole) == pytest.approx(0.01, abs=0.005)
    assert np.mean(bare) > 0.025


def test_head_equals_weighted_least_squares_of_a_known_spread() -> None:
    rng = np.random.default_rng(7)
    rows = np.concatenate([np.ones((5000, 1)), rng.normal(size=(5000, 2))], axis=1)
    values = rows @ [1.0, 2.0, -1.0] + np.exp(rows @ [0.5, 0.4, 0.0] / 2) * rng.normal(size=5000)
    head = GaussianHead.fit(rows, values, 1e-6)
    np.testing.assert_allclose(head.mean_weights, [1.0, 2.0, -1.0], atol=0.08)
    np.testing.assert_allclose(head.log_variance_weights, [0.5, 0.4, 0.0], atol=0.08)
    spread = np.exp(rows @ head.log_variance_weights)
    residual = values - rows @ head.mean_weights
    np.testing.assert_allclose(rows.T @ (residual / spread), 0, atol=0.02)
    assert head.mean_errors[1, 1] == pytest.approx(np.linalg.inv(rows.T @ (rows / spread[:, None]))[1, 1], rel=1e-3)
