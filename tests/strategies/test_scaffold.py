"""Tests of `strategies/scaffold.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.scaffold import Scaffold
from tests.strategies.client_strategies_helpers import CENTRE, CURVATURE, trained


def test_scaffold_over_two_rounds_equals_hand_calculation() -> None:
    """Two rounds of two clients with two steps each, written out."""
    lr, steps = 0.05, [2, 2, 0, 0]
    w, c, own = 0.0, 0.0, np.zeros(4)
    for _ in range(2):
        ends = []
        for k in (0, 1):
            y = w
            for _ in range(2):
                y -= lr * (CURVATURE[k] * (y - CENTRE[k]) - own[k] + c)
            ends.append(y)
        new = [own[k] - c + (w - ends[k]) / (2 * lr) for k in (0, 1)]
        c += sum(new[k] - own[k] for k in (0, 1)) / 4
        own[:2] = new
        w = sum(ends) / 2
    found, state = trained(Scaffold(), 2, who=lambda round_number: [0, 1], steps=steps)
    assert found == pytest.approx(w, abs=1e-12)
    np.testing.assert_allclose(state["own:w"][0, :, 0], own, atol=1e-12)
    assert float(state["all:w"]) == pytest.approx(c, abs=1e-12)


def test_the_first_round_of_scaffold_is_plain_averaging() -> None:
    equal = FedAvg(weighting="uniform")
    assert trained(Scaffold(), 1)[0] == pytest.approx(trained(equal, 1)[0], abs=1e-15)
    assert trained(Scaffold(), 2)[0] != pytest.approx(trained(equal, 2)[0], abs=1e-3)


def test_client_without_steps_keeps_its_control_variate() -> None:
    with_it = trained(Scaffold(), 3, steps=[2, 3, 0, 4])
    without = trained(Scaffold(), 3, steps=[2, 3, 9, 4], who=lambda round_number: [0, 1, 3])
    assert with_it[0] == without[0]
    assert all(torch.equal(value, without[1][name]) for name, value in with_it[1].items())
