"""Softmax regression in plain numpy: the reference model of adversarial examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray

PENALTY = 1e-3
"""Weight of half the squared norm of the weights, which makes the optimum unique."""

STEPS = 300


@dataclass(frozen=True, kw_only=True)
class Softmax:
    """Logits W x + b: `weights` (C, features), `biases` (C,)."""

    weights: FloatArray
    biases: FloatArray


def fit(inputs: NDArray[np.float32], targets: IntArray, num_classes: int) -> Softmax:
    """Minimises mean cross-entropy plus `PENALTY` / 2 |W|^2 by accelerated gradient descent from zero.

    Deterministic: the step is one over the Lipschitz constant of the gradient, which the data give. float64.

    >>> model = fit(np.array([[0.0], [1.0]], np.float32), np.array([0, 1]), 2)
    >>> bool(model.weights[1, 0] > model.weights[0, 0])
    True
    """
    x = inputs.astype(np.float64)
    centre = x.mean(axis=0)
    x = np.concatenate([x - centre, np.ones((len(x), 1))], axis=1)
    truth = np.eye(num_classes)[targets]
    penalty = np.append(np.full(x.shape[1] - 1, PENALTY), 0.0)
    step = 1 / (np.linalg.norm(x, 2) ** 2 / (2 * len(x)) + PENALTY)
    weights = ahead = np.zeros((num_classes, x.shape[1]))
    for t in range(STEPS):
        logits = x @ ahead.T
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        slope = (odds / odds.sum(axis=1, keepdims=True) - truth).T @ x / len(x) + penalty * ahead
        after = ahead - step * slope
        ahead = after + t / (t + 3) * (after - weights)
        weights = after
    # Back from centred inputs.
    return Softmax(weights=weights[:, :-1], biases=weights[:, -1] - weights[:, :-1] @ centre)
