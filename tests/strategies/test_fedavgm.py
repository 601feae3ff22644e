"""Tests of `strategies/fedavgm.py`."""

from __future__ import annotations

import numpy as np
import torch

from fedmem.strategies.fedavgm import FedAvgM
from tests.strategies.strategies_helpers import one_round


def test_fedavgm_follows_the_published_recursion() -> None:
    """Three rounds of v = beta v + d, w = w + eta v in float64; a damped velocity would be another one."""
    rng = np.random.default_rng(3)
    strategy = FedAvgM(momentum=0.8, server_lr=0.5)
    w, v, damped = rng.normal(size=4), np.zeros(4), np.zeros(4)
    model = torch.tensor(w, dtype=torch.float32)
    state = strategy.state({"w": model[None]}, 2)
    w = model.double().numpy()
    other = w.copy()
    for number in range(1, 4):
        sent = rng.normal(size=(2, 4)).astype(np.float32)
        after, state = strategy.rule(state, one_round(sent, before=model, sizes=[30, 10], number=number))
        model = after["w"][0]
        mean = 0.75 * sent[0] + 0.25 * sent[1]
        v, damped = 0.8 * v + (mean - w), 0.8 * damped + 0.2 * (mean - other)
        w, other = w + 0.5 * v, other + 0.5 * damped
        np.testing.assert_allclose(model.numpy(), w, rtol=1e-5, atol=1e-6)
    assert not np.allclose(model.numpy(), other, rtol=1e-2)
