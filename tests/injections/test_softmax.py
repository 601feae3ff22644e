"""Tests of `fedmem/injections/_softmax.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmem.injections._softmax import PENALTY, fit
from tests.injections.atypical_helpers import RESERVE


def test_softmax_regression_reaches_its_optimum() -> None:
    """The gradient of the penalised loss vanishes, and by far not at a rescaled solution."""
    x, y = RESERVE.inputs.reshape(400, -1)[:100], RESERVE.targets[:100]
    model = fit(x, y, 4)

    def slope(weights: Any) -> float:
        logits = x @ weights.T + model.biases
        odds = np.exp(logits - logits.max(1, keepdims=True))
        error = odds / odds.sum(1, keepdims=True) - np.eye(4)[y]
        return float(np.abs(error.T @ x / len(x) + PENALTY * weights).max())

    assert slope(model.weights) < 2e-3
    assert slope(0.5 * model.weights) > 5 * slope(model.weights)
    assert ((x @ model.weights.T + model.biases).argmax(1) == y).mean() > 0.95
