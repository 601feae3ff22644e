"""Tests of `fedmem/signals/_imputation.py`."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from fedmem.signals._imputation import logistic_probabilities, shares_of_largest


def test_probabilities_minimise_the_penalised_loss() -> None:
    rng = np.random.default_rng(0)
    features, values = rng.standard_normal((40, 2)), rng.integers(0, 3, 40)

    def objective(flat: np.ndarray) -> float:
        weights, offset = flat[:6].reshape(2, 3), flat[6:]
        logs = log_softmax(features @ weights + offset, axis=1)
        return float(-logs[np.arange(40), values].sum() + 0.5 * np.square(weights).sum())

    best = minimize(objective, np.zeros(9), tol=1e-10).x
    expected = np.exp(log_softmax(features @ best[:6].reshape(2, 3) + best[6:], axis=1))
    np.testing.assert_allclose(logistic_probabilities(features, values, features, 3), expected, atol=2e-3)


def test_one_value_among_the_rows_is_certain() -> None:
    found = logistic_probabilities(np.zeros((3, 1)), np.array([1, 1, 1]), np.zeros((2, 1)), 3)
    assert found.tolist() == [[0, 1, 0], [0, 1, 0]]


def test_features_that_say_nothing_give_the_shares() -> None:
    found = logistic_probabilities(np.zeros((10, 1)), np.array([0] * 7 + [1] * 3), np.zeros((1, 1)), 2)
    np.testing.assert_allclose(found, [[0.7, 0.3]], atol=1e-4)


def test_shares_add_up_to_one() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [-np.inf, -np.inf, -np.inf], [5.0, 7.0, 6.0]])
    shares = shares_of_largest(scores)
    np.testing.assert_allclose(shares, np.array([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0]]))
