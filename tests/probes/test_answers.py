"""Tests of `fedmem/probes/_answers.py`."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from fedmem.probes._answers import answers


def context(logits: list[list[list[float]]]) -> Any:
    table = np.array(logits)
    return SimpleNamespace(
        federation=SimpleNamespace(num_classes=table.shape[2]),
        logits=lambda models, inputs: table[models][:, inputs.astype(int)],
    )


def test_correctness_is_strict_and_loss_is_cross_entropy() -> None:
    # two models, three rows, two classes
    shown = context([[[0.0, 1.0], [0.0, 0.0], [3.0, 0.0]], [[2.0, 0.0], [0.0, 1.0], [0.0, math.nan]]])
    with np.errstate(invalid="ignore"):
        models: Any = [0, 1]
        right, loss = answers(models, np.arange(3, dtype=np.float32), np.array([1, 0, 0]), shown)
    np.testing.assert_array_equal(right, [[1, 0, 1], [0, 0, np.nan]])
    np.testing.assert_allclose(loss[0], np.log1p(np.exp([-1.0, 0.0, -3.0])))
    np.testing.assert_allclose(loss[1, :2], np.log1p(np.exp([2.0, 1.0])))
    assert np.isnan(loss[1, 2]), "a model that has diverged answers nothing"
