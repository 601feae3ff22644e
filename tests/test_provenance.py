"""Results are not taken for those of code that has changed since."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fedmem.errors import FolderError
from fedmem.provenance import changed, commit, components_of
from fedmem.results import read
from fedmem.running import run
from tests.tiny import tiny

STRATEGY = '''"""A strategy of somebody's own."""

from dataclasses import dataclass

from flwr.serverapp.strategy import {kind}


@dataclass(frozen=True, kw_only=True)
class Mine:
    """Mine."""

    def make(self, cohort_size):
        return {kind}(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
'''


def test_every_component_nested_ones_too_is_named() -> None:
    scenario = tiny(
        runs=8,
        probes=[{"kind": "leakage", "attack": {"kind": "inverting_gradients"}}],
        estimators=[{"kind": "membership", "attack": {"kind": "lira"}}],
    )
    found = components_of(scenario)
    assert {"leakage", "inverting_gradients", "membership", "lira", "synthetic", "fedavg", "sgd"} <= set(found)
    assert len(set(found.values())) == len(found)
    assert changed(scenario, {"components": found}) == []
    assert changed(scenario, {"components": found | {"lira": "0"}}) == ["lira"]
    assert changed(scenario, {}) == []


def test_a_changed_component_is_not_answered_with_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "own_strategy_for_provenance.py"
    module.write_text(STRATEGY.format(kind="FedAvg"))
    monkeypatch.syspath_prepend(str(tmp_path))
    scenario = tiny(runs=2, rounds=1, observe={"every": 1}, strategy={"kind": f"{module.stem}:Mine"})
    folder = run(scenario, out=tmp_path / "runs")
    assert run(scenario, out=tmp_path / "runs") == folder
    module.write_text(STRATEGY.format(kind="FedMedian"))
    with pytest.raises(FolderError, match=r"own_strategy_for_provenance:Mine was another; run again with --force"):
        run(scenario, out=tmp_path / "runs")
    before = read(folder).manifest["components"]
    assert run(scenario, out=tmp_path / "runs", force=True) == folder
    assert read(folder).manifest["components"] != before


def test_a_stock_strategy_is_named_by_its_class() -> None:
    kind = "flwr.serverapp.strategy:FedYogi"
    assert kind in components_of(tiny(strategy={"kind": kind}))


def test_commit_says_whether_files_differ() -> None:
    here = Path(__file__).parent.parent
    if not (here / ".git").exists():
        assert commit() is None
        return
    head = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert (commit() or "").rstrip("+") == head.stdout.strip()
