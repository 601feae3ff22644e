"""Tests of `fedmem/scenario/check_cohorts.py`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenario.declared_helpers import COMPARING, KINDS, refusal


@pytest.mark.parametrize("probe", COMPARING, ids=KINDS)
def test_comparing_probe_needs_cohorts_independent_of_coins(probe: dict[str, Any]) -> None:
    greedy = {"sampler": {"kind": "power_of_choice", "size": 3, "candidates": 4}, "probes": [probe]}
    ((path, message),) = refusal(**greedy, roster="per_run")
    assert path == "probes[0]"
    assert f"{probe['kind']} compares examples that are in with examples that are held out" in message
    assert "power_of_choice" in message
    assert not refusal(**greedy, roster="pilot")
    assert not refusal(probes=[probe], roster="per_run"), "a sampler that reads no coin picks alike in all runs"
