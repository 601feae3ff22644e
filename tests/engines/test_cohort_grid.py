"""Tests of `fedmem/engines/_cohort_grid.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import RunError
from tests.engines.lockstep_helpers import trained
from tests.tiny import tiny


def test_strategy_that_waits_for_more_nodes_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda seconds: None)
    greedy = {"kind": "flwr.serverapp.strategy:FedAvg", "min_available_nodes": 4}
    with pytest.raises(RunError, match=r"waits for more nodes than the 3.*min_available_nodes"):
        trained(tiny(strategy=greedy))
