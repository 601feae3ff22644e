"""Tests of `fedmem/results/readings.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.results.readings import write_readings
from fedmem.results.tables import read_measurements, read_participation
from tests.results.read_helpers import MEASUREMENTS, bank


def test_readings_are_four_tables(tmp_path: Path) -> None:
    write_readings(tmp_path, bank(), MEASUREMENTS)
    names = ["evidence", "measurements", "participation", "references"]
    assert sorted(file.stem for file in tmp_path.iterdir()) == names
    assert [str(row) for row in read_measurements(tmp_path / "measurements.parquet")] == [str(m) for m in MEASUREMENTS]
    assert read_participation(tmp_path / "participation.parquet") == list(bank().participation)
