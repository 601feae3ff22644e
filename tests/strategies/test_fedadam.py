"""Tests of `strategies/fedadam.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from flwr.serverapp import strategy as flwr_strategy

from fedmem.engines._flower import in_process
from fedmem.strategies.fedadam import FedAdam
from tests.cohorts import by_messages, cohort, models
from tests.strategies.adaptive_helpers import Stock


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def test_flowers_adam_is_not_the_published_one() -> None:
    """Why ours exists: Flower's class corrects the bias with the round plus one and widens to float64."""
    rng = np.random.default_rng(6)
    before, there = models(rng, 1)[0], cohort(rng, 2)
    ours = by_messages(FedAdam(server_lr=0.1), [there], before)[0]
    theirs = by_messages(Stock(flwr_strategy.FedAdam, eta=0.1), [there], before)[0]
    assert theirs["layer.bias"].dtype == torch.float64
    assert not torch.allclose(ours["layer.bias"], theirs["layer.bias"].float(), rtol=0.05)
