"""Tests of `fedmem/attacks/self_influence.py`."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from fedmem.attacks.self_influence import SelfInfluence
from fedmem.contracts.attack import Signals


@pytest.mark.parametrize(("layers", "name"), [("all", "grad_norm"), ("last", "last_layer_norm")])
def test_score_is_that_of_a_gradient_step_on_the_example(layers: Literal["all", "last"], name: str) -> None:
    """A step of size η along −∇ℓ changes ℓ by η times the score, for small η."""
    weights, x, y = np.array([0.4, -1.1]), np.array([2.0, 0.5]), 0.3
    gradient = (weights @ x - y) * x
    norms = np.array([[np.linalg.norm(gradient)]])
    attack = SelfInfluence(layers=layers)
    assert attack.reads_signals == (name,)
    score = attack.scores(Signals(margin=norms, is_in=norms > 0, signals={name: norms})).item()
    step = 1e-6
    change = 0.5 * ((weights - step * gradient) @ x - y) ** 2 - 0.5 * (weights @ x - y) ** 2
    assert score == pytest.approx(change / step, rel=1e-4)
    assert score < 0
