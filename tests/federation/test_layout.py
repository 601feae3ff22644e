"""Tests of `fedmem/federation/layout.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.federation import build
from fedmem.scenario.scenario import LeaveOut
from tests.federation.build_helpers import scenario


def test_coins_of_clients_are_not_those_of_examples() -> None:
    """An example that were in just where some client is there would show the influence of the client as its own."""
    agree = []
    for seed in range(4):
        audit = build.build(scenario(seed=seed, runs=16, clients=6, leave_out=LeaveOut(clients="all"))).audit
        assert audit.client_in is not None
        agree.append((audit.client_in == audit.is_in[:, :6]).mean())
        assert not (audit.client_in[:, :, None] == audit.is_in[:, None]).all(axis=0).any()
        assert not (audit.client_in[:, :, None] != audit.is_in[:, None]).all(axis=0).any()
    assert np.mean(agree) == pytest.approx(0.5, abs=0.1)
