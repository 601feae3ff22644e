"""Tests of `fedmem/execution/model_space.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fedmem
from fedmem.errors import ScenarioError
from fedmem.execution.plan import plan
from fedmem.execution.run import run
from tests.tiny import tiny

SMALL: dict[str, Any] = {"injections": [{"kind": "typical", "per_client": 1}], "observe": {"every": 1}}

CASES: dict[str, dict[str, Any]] = {
    "last": {"save": {"models": {}}},
    "some": {"save": {"models": {"rounds": [0, 1, 3], "levels": ["local", "global"], "runs": 3}}},
    "more runs than there are": {"save": {"models": {"runs": 99, "levels": ["local"]}}},
    "drawn by each run": {
        "save": {"models": {"rounds": [1, 2, 3, 4]}},
        "sampler": {"kind": "poisson", "rate": 0.4},
        "roster": "per_run",
    },
    "personal": {"save": {"models": {"rounds": [0, 2]}}, "client": {"kind": "fedper", "lr": 0.1, "layers": 1}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_plan_has_the_number_and_bytes_of_saved_models(case: str, tmp_path: Path) -> None:
    scenario = tiny(**{**SMALL, **CASES[case]})
    planned = plan(scenario)
    entries = fedmem.read(run(scenario, out=tmp_path)).manifest["models"]
    assert planned.saved == sum(entry["models"] for entry in entries)
    written = sum(entry["bytes"] for entry in entries)
    assert planned.disk["models"] <= written <= planned.disk["models"] + 2000 * len(entries)


def test_nothing_is_planned_where_nothing_is_saved() -> None:
    assert plan(tiny(**SMALL)).saved == 0
    assert "models" not in plan(tiny(**SMALL)).disk


def test_a_disk_without_room_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = tiny(**SMALL, save={"models": {}})
    needed = 2 * plan(scenario).disk["models"]
    for free, refused in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda place, free=free: SimpleNamespace(free=free))
        if refused:
            with pytest.raises(
                ScenarioError, match=r"save.models: 16 models take .* while shards are joined, and .*free"
            ):
                run(scenario, out=tmp_path)
            assert list(tmp_path.iterdir()) == []
        else:
            run(scenario, out=tmp_path)
