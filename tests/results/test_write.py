"""Tests of `fedmem/results/write.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.results.read import read
from fedmem.results.write import replace_measurements
from tests.results.read_helpers import MEASUREMENTS, entries, measurement, write


def test_equal_measurements_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, reconstructions={"x/y": np.ones(3)})
    for name in entries(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_measurements_can_be_replaced_and_nothing_else_changes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    before = {name: (tmp_path / "a" / name).read_bytes() for name in entries(tmp_path / "a")}
    replace_measurements(tmp_path / "a", MEASUREMENTS)
    assert before == {name: (tmp_path / "a" / name).read_bytes() for name in entries(tmp_path / "a")}
    replace_measurements(tmp_path / "a", [measurement(math.nan)] * 5)
    run = read(tmp_path / "a")
    assert len(run.measurements) == run.manifest["rows"]["measurements"] == 5
    assert run.manifest["not_finite"]["measurements.value"] == {"nan": 5, "infinite": 0}
    assert run.manifest["rows"]["audit"] == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug"), SystemExit(1)])
def test_an_interruption_leaves_no_trace_and_keeps_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupt(folder: Path, *_: Any) -> None:
        assert "evidence.parquet" in entries(folder)
        raise error

    write(tmp_path / "a")
    monkeypatch.setattr("fedmem.results.write._write_manifest", interrupt)
    with pytest.raises(type(error)):
        write(tmp_path / "new" / "b")
    with pytest.raises(type(error)):
        write(tmp_path / "a", manifest={"executor": "one_by_one"}, force=True)
    assert entries(tmp_path) == ["a"]
    assert read(tmp_path / "a").manifest["executor"] == "stacked"
