"""Tests of `fedmem/contracts/client.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.scenario.catalogue import kinds, load


def test_every_shipped_client_declares_its_schedule() -> None:
    for kind in kinds("client"):
        assert hasattr(load("client", kind), "schedule"), kind


@pytest.mark.parametrize("client", [Sgd(lr=0.5, decay=0.9, weight_decay=0.1), DpSgd(lr=0.5, decay=0.9)])
def test_the_schedule_of_sgd(client: Sgd | DpSgd) -> None:
    schedule = client.schedule(3, 4)
    np.testing.assert_allclose(schedule.learning_rates, [0.5 * 0.81] * 4, rtol=1e-15)
    assert schedule.weight_decay == (0.1 if isinstance(client, Sgd) else 0.0)
