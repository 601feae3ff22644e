"""Tests of `strategies/feddyn.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.strategies.feddyn import FedDyn
from tests.strategies.client_strategies_helpers import CENTRE, CURVATURE, trained


def test_feddyn_over_two_rounds_equals_hand_calculation() -> None:
    lr, alpha = 0.05, 0.7
    w, h, own = 0.0, 0.0, np.zeros(4)
    for _ in range(2):
        ends = []
        for k in (0, 1):
            y = w
            for _ in range(2):
                y -= lr * (CURVATURE[k] * (y - CENTRE[k]) - own[k] + alpha * (y - w))
            ends.append(y)
        for k in (0, 1):
            own[k] -= alpha * (ends[k] - w)
        h -= alpha * sum(end - w for end in ends) / 4
        w = sum(ends) / 2 - h / alpha
    found, state = trained(FedDyn(alpha=alpha), 2, who=lambda round_number: [0, 1], steps=[2, 2, 0, 0])
    assert found == pytest.approx(w, abs=1e-12)
    np.testing.assert_allclose(state["own:w"][0, :, 0], own, atol=1e-12)
