"""Changed data never give yesterday's results: finished runs are refused, half-finished ones trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.errors import FolderError, RunError
from fedmem.execution.checked_inputs import build_federation
from fedmem.execution.run import run
from fedmem.scenario.scenario import Scenario
from tests.execution.sharding_helpers import SMALL, Stopping, written
from tests.tiny import tiny

TYPICAL: dict[str, Any] = {"injections": [{"kind": "typical", "per_client": 1}]}
LOADER = '''"""A data set of somebody's own, whose file no field names."""

from dataclasses import dataclass

import numpy as np

from fedmem.contracts.data import Dataset, Examples
from fedmem.modalities.tables import Tables


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Mine."""

    def load(self, rng):
        inputs = np.load("hidden.npy")
        rows = Examples(inputs=inputs, targets=np.arange(len(inputs)) % 2, ids=np.arange(len(inputs)))
        parts = np.split(np.arange(len(inputs)), [200])
        return Dataset(train=rows.take(parts[0]), test=rows.take(parts[1]), num_classes=2, modality=Tables())
'''


def write_table(file: Path, last: str = "A") -> None:
    """Two sites and a number, of 240 rows; `last` is the site of the last one."""
    rows = [f"{'AB'[i % 2]},{i % 17}.5,{'yes' if i % 3 else 'no'}" for i in range(239)]
    file.write_text("\n".join(["site,age,ill", *rows, f"{last},3.5,no"]))


def on_table(folder: Path, **changes: Any) -> Scenario:
    dataset = {"kind": "csv", "path": str(folder / "mine.csv"), "target": "ill", "client": "site"}
    natural = {"clients": 2, "partition": {"kind": "natural"}, "sampler": {"kind": "everyone"}}
    return tiny(**{**SMALL, **TYPICAL, "runs": 4, "dataset": dataset, **natural, **changes})


def test_a_changed_client_cell_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "mine.csv")
    folder = run(on_table(tmp_path), out=tmp_path / "runs")
    assert run(on_table(tmp_path), out=tmp_path / "runs") == folder
    write_table(tmp_path / "mine.csv", last="B")
    with pytest.raises(FolderError, match=r"the files of csv \(mine.csv\)"):
        run(on_table(tmp_path), out=tmp_path / "runs")


def test_shards_of_other_data_are_trained_again(tmp_path: Path) -> None:
    write_table(tmp_path / "mine.csv")
    scenario = on_table(tmp_path, speed={"shard": 1, "workers": 1})
    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=tmp_path / "runs", listeners=[Stopping(after=4)])
    write_table(tmp_path / "mine.csv", last="B")
    listener = Stopping()
    folder = run(scenario, out=tmp_path / "runs", listeners=[listener])
    again = [line for line in listener.said if line.startswith("training run 0 again")]
    assert "another data, another files of csv (mine.csv)" in again[0]
    assert written(folder) == written(run(scenario, out=tmp_path / "others"))


def test_data_of_a_file_that_no_field_names_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_hidden_loader.py").write_text(LOADER)
    inputs = np.random.default_rng(0).random((260, 6), dtype=np.float32)
    np.save("hidden.npy", inputs)
    scenario = tiny(**{**SMALL, **TYPICAL}, runs=2, dataset={"kind": "own_hidden_loader:Hidden"})
    folder = run(scenario, out=tmp_path / "runs")
    assert run(scenario, out=tmp_path / "runs") == folder
    changed = inputs.copy()
    changed[7, 3] = 1 - changed[7, 3]
    np.save("hidden.npy", changed)
    with pytest.raises(FolderError, match="the data that own_hidden_loader:Hidden makes"):
        run(scenario, out=tmp_path / "runs")
    np.save("hidden.npy", inputs)
    assert run(scenario, out=tmp_path / "runs") == folder


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmem.datasets.csv import Csv

    write_table(tmp_path / "mine.csv")
    load = Csv.load

    def load_and_change(self: Csv, rng: np.random.Generator) -> Any:
        data = load(self, rng)
        write_table(tmp_path / "mine.csv", last="B")
        return data

    monkeypatch.setattr(Csv, "load", load_and_change)
    with pytest.raises(RunError, match=r"csv \(mine.csv\) changed while they were read"):
        build_federation(on_table(tmp_path))
