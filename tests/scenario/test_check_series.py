"""Tests of `fedmem/scenario/check_series.py`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenario.declared_helpers import refusal

DECAY = {"estimators": [{"kind": "decay"}]}


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({"observe": {"every": 1}}, False),
        ({"observe": {"rounds": [1, 2, 3]}}, False),
        ({"observe": {"every": 2}}, True),
        ({"observe": {"every": 1, "levels": ["global"]}}, True),
        ({"observe": {"every": 1, "levels": ["local"]}}, True),
        ({"observe": {"every": 1}, "roster": "per_run"}, True),
    ],
)
def test_rounds_since_use_need_every_round(changes: dict[str, Any], is_refused: bool) -> None:
    found = refusal(**changes, **DECAY)
    assert [path for path, _ in found] == ["estimators[0]"] * is_refused
    assert all("write observe: {every: 1} with the levels local and global" in message for _, message in found)
    assert not refusal(**changes, estimators=[{"kind": "memorisation"}])


@pytest.mark.parametrize(
    ("observe", "is_refused"), [({"every": 1}, False), ({"rounds": [1, 2, 3]}, False), ({"every": 2}, True)]
)
def test_signals_that_follow_runs_need_every_round(observe: dict[str, Any], is_refused: bool) -> None:
    found = refusal(observe=observe, signals=[{"kind": "fed_influence"}])
    assert [path for path, _ in found] == ["signals[0]"] * is_refused
    assert all("observe: {every: 1}" in message for _, message in found)
    assert not refusal(observe=observe, signals=[{"kind": "client_value"}])


@pytest.mark.parametrize("kind", ["modified_entropy", "fedmia", "attack_p", "reference_model"])
def test_attack_on_each_round_reads_margins_alone(kind: str) -> None:
    estimators = [{"kind": "decay", "attack": {"kind": kind}}]
    found = refusal(runs=8, observe={"every": 1}, estimators=estimators)
    assert any(
        path == "estimators[0].attack" and "use an attack such as {kind: lira}" in message for path, message in found
    )
    estimators = [{"kind": "decay", "attack": {"kind": "lira"}}]
    assert not refusal(runs=8, observe={"every": 1}, estimators=estimators)
