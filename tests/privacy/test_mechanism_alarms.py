"""Tests of `fedmem/privacy/mechanism_alarms.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.privacy import mechanism_alarms
from tests.probes.mechanism_helpers import PRIVATE, PROBE, SERVERS, made, outcome

CANARIES: dict[str, Any] = {"kind": "canary_clients"}


HEALTHY: list[dict[str, Any]] = [
    {"strategy": {**SERVERS["dp_fedavg"], "cap": 20}},
    {
        "strategy": {**SERVERS["dp_fedavg"], "canary_clients": 30, "expected_cohort_size": 35},
        "probes": [*PROBE, CANARIES],
    },
    {"strategy": {**SERVERS["dp_ftrl"], "honaker": False, "restart": 3}, "rounds": 7},
    {"strategy": {**SERVERS["dp_ftrl"], "server_lr": 0.5, "momentum": 0.9}},
    {"client": {**PRIVATE, "momentum": 0.9, "decay": 0.8}, "defences": [{"kind": "quantise"}]},
    {"sampler": {"kind": "poisson", "rate": 0.3}, "strategy": {**SERVERS["dp_fedavg"], "expected_cohort_size": 1.5}},
]


@pytest.mark.parametrize("changes", HEALTHY)
def test_healthy_mechanisms_raise_no_alarm(changes: dict[str, Any]) -> None:
    found, rows = outcome(made(**changes), "healthy")
    assert not found
    assert any(row.reading.metric == mechanism_alarms.METRIC for row in rows)
