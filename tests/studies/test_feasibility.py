"""Every setting and seed is checked before anything runs: all problems at once, each with the settings that have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.errors import ComponentError, ScenarioError
from fedmem.partitions.iid import IID
from fedmem.studies.compare import compare
from fedmem.studies.feasibility import FeasibleCell, checked_cells, try_cells
from fedmem.studies.grid import cross, settings_of
from fedmem.studies.sweep import sweep
from tests.studies.compare_helpers import small
from tests.studies.sweep_helpers import Write

QUICK: dict[str, Any] = {"rounds": 2, "runs": 2, "probes": [], "estimators": [{"kind": "memorisation"}]}


@dataclass(frozen=True, kw_only=True)
class OddSeeds:
    """A partition that can be drawn for some seeds only: for those whose first draw is large."""

    above: float = 0.5

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        if rng.random() < self.above:
            raise ComponentError("above", "the draw is too small")
        return IID().assign(data, rows, num_clients, rng)


def said(error: pytest.ExceptionInfo[ScenarioError]) -> list[str]:
    return [str(problem) for problem in error.value.problems]


def test_impossible_settings_are_named_and_nothing_runs(tmp_path: Path) -> None:
    vary: dict[str, list[Any]] = {"injections[0].per_client": [1, 500, 600], "client.lr": [0.1, -1.0]}
    with pytest.raises(ScenarioError) as error:
        compare(small(**QUICK), vary=vary, seeds=2, out=tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()
    # what the file alone tells, and what only the data tell, at once
    (rate,) = [text for text in said(error) if "client.lr" in text]
    assert rate.startswith("--vary client.lr=-1")
    rows = [text for text in said(error) if "rows minus" in text]
    assert [text.rpartition("(setting ")[2] for text in rows] == ["per_client=500, lr=0.1)", "per_client=600, lr=0.1)"]
    assert len(said(error)) == 3


def test_seeds_that_are_impossible_are_named(tmp_path: Path) -> None:
    scenario = small(**QUICK, partition={"kind": "tests.studies.test_feasibility:OddSeeds"})
    cells = cross(scenario, settings_of({"client.lr": ["0.1", "0.2"]}), range(8))
    possible = {cell.seed for cell, result in try_cells(cells) if isinstance(result, FeasibleCell)}
    assert 0 < len(possible) < 8
    with pytest.raises(ScenarioError) as error:
        compare(scenario, vary=["client.lr=0.1,0.2"], seeds=8, out=tmp_path, jobs=1)
    (text,) = said(error)
    seeds = ", ".join(str(seed) for seed in range(8) if seed not in possible)
    assert text.endswith(f"(settings lr=0.1 with seeds {seeds}; lr=0.2 with seeds {seeds})")


def test_what_is_finished_is_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmem.federation import build as federations

    settings = settings_of({"client.lr": ["0.1", "0.2"]})
    cells = checked_cells(small(**QUICK), settings, (0,), out=tmp_path, force=False)
    for cell in cells:
        folder = tmp_path / cell.scenario.name / cell.scenario.id
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    monkeypatch.delattr(federations, "build")
    assert checked_cells(small(**QUICK), settings, (0,), out=tmp_path, force=False) == cells
    with pytest.raises(AttributeError):
        checked_cells(small(**QUICK), settings, (0,), out=tmp_path, force=True)


def test_an_impossible_value_of_a_sweep_is_reported_first(write: Write, tmp_path: Path) -> None:
    file = write(axes=[{"path": "injections[0].per_client", "values": [1, 500]}], seeds=2)
    with pytest.raises(ScenarioError) as error:
        sweep(file, out=tmp_path / "out", jobs=1)
    (text,) = said(error)
    assert "rows minus" in text
    assert text.endswith("(setting per_client=500)")
    assert not (tmp_path / "out").exists()
