"""Tests of `strategies/fedyogi.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fedmem.engines._flower import in_process
from fedmem.strategies.fedadam import FedAdam
from fedmem.strategies.fedyogi import FedYogi
from tests.cohorts import cohort, stacked


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def test_yogi_stays_slow_for_longer_after_a_large_update() -> None:
    """After one update of 1 and forty of 0.1, Adam has forgotten the first, and Yogi two fifths of it."""
    rng = np.random.default_rng(0)
    before = {"w": torch.zeros(1)}
    sizes = [1.0] + [0.1] * 40
    steps = {}
    for strategy in (FedAdam(beta_1=0.0, beta_2=0.9), FedYogi(beta_1=0.0, beta_2=0.9)):
        w, path = 0.0, []
        state = strategy.state({"w": before["w"][None]}, 1)
        for number, size in enumerate(sizes, start=1):
            there = cohort(rng, 1).sending([{"w": torch.tensor([w + size])}])
            after, state = strategy.rule(state, stacked(number, [there], {"w": torch.tensor([[w]])}))
            path.append(after["w"].item() - w)
            w = after["w"].item()
        steps[type(strategy).__name__] = path[-1]
    assert steps["FedYogi"] < 0.5 * steps["FedAdam"]
