"""Tests of `fedmem/scenario/saving.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.loading import parse_scenario
from tests.tiny import tiny


def test_models_of_few_rounds_are_clipped_with_them() -> None:
    text = "{rounds: 9, clients: 3, dataset: {kind: synthetic}, model: {kind: mlp}, observe: {every: 1}, save: {models:"
    shorter = parse_scenario(text + "\n {rounds: [2, 8]}}}", overrides=["rounds=4"])
    assert shorter.save.models is not None
    assert shorter.save.models.rounds == (2,)
    assert "save.models.rounds leaves out 8" in shorter.notes[0]
    last = parse_scenario(text + "\n {rounds: [8]}}}", overrides=["rounds=4"]).save.models
    assert last is not None
    assert last.rounds == (4,)


def test_a_scenario_that_saves_no_models_keeps_its_id() -> None:
    assert tiny().id == tiny(save={"models": None}).id
    assert len({tiny().id, tiny(save={"models": {}}).id, tiny(save={"models": {"runs": 2}}).id}) == 3
    assert tiny(save={"models": {}}).id == tiny(save={"models": {"rounds": [4]}}).id


@pytest.mark.parametrize(
    ("models", "observe", "message"),
    [
        ({"rounds": [3]}, {"every": 2}, r"save.models.rounds\[0\]: round 3 is not observed; add it to observe.rounds"),
        ({"rounds": [9]}, {"every": 2}, r"save.models.rounds\[0\]: round 9 is not observed"),
        ({"rounds": [4, -1]}, {}, r"save.models.rounds\[1\]: round 4 is named twice"),
        ({}, {"levels": ["global"]}, r"save.models.levels\[0\]: level local is not observed"),
        ({"levels": ["sum"]}, {}, r"save.models.levels\[0\]: should be 'local' or 'global', got 'sum'"),
        ({"levels": ["global", "global"]}, {}, r"save.models.levels\[1\]: level global is named twice"),
        ({"runs": 0}, {}, "save.models.runs: .* 1"),
        (True, {}, "save.models: should be a mapping, got True"),
    ],
)
def test_wrong_settings_are_refused_at_their_place(models: Any, observe: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        tiny(save={"models": models}, observe=observe)
