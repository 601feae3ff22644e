"""Tests of `strategies/fedadagrad.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flwr_strategy

from fedmem.engines._flower import in_process
from fedmem.strategies.fedadagrad import FedAdagrad
from fedmem.strategies.fedyogi import FedYogi
from tests.cohorts import by_messages, cohort, flat, models
from tests.strategies.adaptive_helpers import Stock


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


@pytest.mark.parametrize(
    ("ours", "theirs", "betas"),
    [
        (FedYogi, flwr_strategy.FedYogi, {"beta_1": 0.8, "beta_2": 0.95}),
        (FedAdagrad, flwr_strategy.FedAdagrad, {}),
    ],
)
def test_flowers_yogi_and_adagrad_differ_only_by_their_start(ours: Any, theirs: Any, betas: dict[str, float]) -> None:
    """Flower starts the second moment at zero: with a tau of next to nothing the difference is gone."""
    rng = np.random.default_rng(6)
    before, rounds = models(rng, 1)[0], [cohort(rng, 3) for _ in range(3)]
    for tau, equal in ((1e-7, True), (0.3, False)):
        one = by_messages(ours(server_lr=0.1, tau=tau, **betas), rounds, before)
        other = by_messages(Stock(theirs, eta=0.1, tau=tau, **betas), rounds, before)
        assert np.allclose(flat(one[-1]), flat(other[-1]), rtol=1e-3, atol=1e-4) == equal
