"""Tests of `fedmem/scenario/check_attacks.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from tests.tiny import tiny


def test_reference_model_needs_the_aggregate_of_round_0() -> None:
    reading = [{"kind": "membership", "attack": {"kind": "reference_model"}}]
    with pytest.raises(ScenarioError) as caught:
        tiny(estimators=reading, observe={"levels": ["local"]})
    (problem,) = caught.value.problems
    assert problem.path == "observe.levels"
    assert "add global, or leave the attack out" in problem.message
    tiny(estimators=reading, observe={"levels": ["local", "global"]})
    tiny(estimators=[{"kind": "membership", "attack": {"kind": "loss_threshold"}}], observe={"levels": ["local"]})
