"""Tests of `fedmem/scenario/check_training.py`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenario.declared_helpers import COMPARING, refusal


@pytest.mark.parametrize("probe", [COMPARING[0], COMPARING[1], COMPARING[3]], ids=["leakage", "information", "own"])
def test_gradient_probe_needs_a_client_with_a_schedule(probe: dict[str, Any]) -> None:
    ((path, message),) = refusal(client={"kind": "tests.declaring:Unscheduled"}, probes=[probe])
    assert path == "probes[0]"
    assert "tests.declaring:Unscheduled does not say them" in message
    assert "schedule(round_number, num_steps)" in message
    assert not refusal(client={"kind": "tests.declaring:Scheduled"}, probes=[probe])
