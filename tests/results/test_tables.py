"""Tests of `fedmem/results/tables.py`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedmem.contracts.coin_law import BALANCED, CoinLaw
from fedmem.errors import RunError
from fedmem.results.read import read, read_bank
from fedmem.results.tables import read_audit
from fedmem.results.write import write_audit
from tests.banks import make_audit
from tests.results.read_helpers import MEASUREMENTS, STORED, measurement, write


@pytest.mark.parametrize("name", STORED)
def test_missing_rows_are_reported_as_damage(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a")
    manifest = tmp_path / "a" / "manifest.json"
    stored = json.loads(manifest.read_text())
    stored["rows"][name] += 1
    manifest.write_text(json.dumps(stored))
    with pytest.raises(RunError, match=rf"{name}\.parquet is damaged .* rows, .* were written"):
        getattr(read(tmp_path / "a"), name)
    if name != "measurements":
        with pytest.raises(RunError, match=rf"{name}\.parquet is damaged"):
            read_bank(tmp_path / "a")


def test_measurements_come_back_as_records(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert list(map(repr, read(tmp_path / "a").rows())) == list(map(repr, MEASUREMENTS))
    rows = [measurement(0.1, run=run, round=number) for run in (0, None) for number in (0, None)]
    write(tmp_path / "c", measurements=rows)
    stored = pq.read_table(tmp_path / "c" / "measurements.parquet").to_pydict()
    assert (stored["run"], stored["round"]) == ([0, 0, None, None], [0, None, 0, None])
    assert stored["scope"] == ["run", "run_summary", "round", "summary"]
    assert read(tmp_path / "c").rows() == rows
    write(tmp_path / "b", measurements=[])
    assert read(tmp_path / "b").rows() == []


def test_the_law_of_coins_comes_back(tmp_path: Path) -> None:
    rates = np.array([0.1, 0.25, 0.9])
    audit = make_audit(["a"] * 2, [0, 1], np.random.default_rng(0).random((3, 2)) < 0.5)
    for law, of_runs in ((BALANCED, None), (CoinLaw(law="beta", alpha=16.0, beta=2.0), rates)):
        folder = tmp_path / law.law
        folder.mkdir()
        write_audit(folder, replace(audit, coin_law=law, inclusion_rates=of_runs), {}, None)
        found = read_audit(folder / "audit.parquet")
        assert found.coin_law == law
        np.testing.assert_array_equal(found.inclusion_rates, of_runs)
        assert (b"coin_law" in (folder / "audit.parquet").read_bytes()) == (law != BALANCED)
