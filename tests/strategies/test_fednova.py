"""Tests of `strategies/fednova.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.strategies._rule import Round
from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.fednova import FedNova
from tests.strategies.client_strategies_helpers import CENTRE, CURVATURE, STEPS, trained


def test_fednova_by_hand_and_equal_steps_are_averaging() -> None:
    """Two clients: p = 1/4, 3/4, steps 9 and 2, so tau = 15/4."""
    sizes, pair = (1, 3, 0, 0), (lambda round_number: [0, 1])
    ends = [CENTRE[k] * (1 - (1 - 0.05 * CURVATURE[k]) ** int(STEPS[k])) for k in (0, 1)]
    expected = 3.75 * (0.25 * ends[0] / 9 + 0.75 * ends[1] / 2)
    assert trained(FedNova(), 1, sizes=sizes, who=pair)[0] == pytest.approx(expected, abs=1e-12)
    same: dict[str, Any] = {"sizes": sizes, "who": pair, "steps": [5] * 4}
    assert trained(FedNova(), 6, **same)[0] == pytest.approx(
        trained(FedAvg(), 6, **same)[0],
        abs=1e-12,
    )


def test_fednova_is_consistent_where_averaging_is_not() -> None:
    """Small steps, different numbers of them: the minimum of the mean loss weighted by sizes."""
    sizes = (3, 1, 1, 2)
    weights = np.array(sizes) * CURVATURE
    minimum = float((weights * CENTRE).sum() / weights.sum())
    settings: dict[str, Any] = {"rounds": 300, "lr": 2e-3, "sizes": sizes, "steps": [2, 20, 8, 4]}
    assert trained(FedNova(), **settings)[0] == pytest.approx(minimum, abs=0.03)
    assert abs(trained(FedAvg(), **settings)[0] - minimum) > 0.2


def test_fednova_length_with_momentum_sums_gradient_weights() -> None:
    """A gradient that is always 1: the update of t steps is -lr a, with the a that the rule divides by."""
    rho, lr, steps = 0.8, 0.1, 6
    client = Sgd(lr=lr, momentum=rho)
    state = client.init({"w": torch.zeros(1, dtype=torch.float64)}, {}, {})
    for _ in range(steps):
        state = client.step(state, lambda params: {"w": torch.ones(1, dtype=torch.float64)})
    there = torch.ones((1, 2), dtype=torch.bool)
    sent = torch.stack([state["params"]["w"], torch.full((1,), -lr, dtype=torch.float64)])[None]
    round_number = Round(
        number=1,
        before={"w": torch.zeros((1, 1), dtype=torch.float64)},
        sent={"w": sent},
        weights=there.double(),
        present=there,
        clients=torch.arange(2)[None],
        report={"steps": torch.tensor([[float(steps), 1.0]], dtype=torch.float64)},
    )
    after, _ = FedNova(client_momentum=rho).rule({}, round_number)
    # both have gradient 1 per unit of length, so the mean goes as far as the mean length
    assert float(after["w"]) == pytest.approx(float(sent.mean()), abs=1e-12)
    wrong, _ = FedNova().rule({}, round_number)
    assert abs(float(wrong["w"]) - float(sent.mean())) > 0.01
