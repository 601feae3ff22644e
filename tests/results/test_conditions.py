"""Tests of `fedmem/results/conditions.py`: the column of values that are conditional on shared batches."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedmem
from fedmem.results.tables import measurement_rows, read_measurements, write_measurements
from fedmem.sharing.run_content import run_tables
from tests.reporting.page_helpers import rows
from tests.tiny import tiny


def test_condition_is_a_column_and_no_label(tmp_path: Path) -> None:
    measured = list(rows())
    write_measurements(tmp_path, measured, "batches")
    stored = read_measurements(tmp_path / "measurements.parquet")
    assert list(map(repr, stored)) == list(map(repr, measured)), "NaN equals nothing"
    table = measurement_rows(measured, "batches")
    assert set(table.column("conditional_on").to_pylist()) == {"batches"}
    plain = measurement_rows(measured)
    assert table.drop_columns("conditional_on").to_pandas().equals(plain.to_pandas())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("runs")
    changes = {"runs": 8, "rounds": 2, "estimators": [{"kind": "memorisation"}], "injections": [{"kind": "typical"}]}
    return {name: fedmem.run(tiny(batches=name, **changes), out=place) for name in ("per_run", "shared")}


def test_all_values_of_shared_batches_say_so(folders: dict[str, Path]) -> None:
    run = fedmem.read(folders["shared"])
    frames = [run.measurements, run.table(), run.values("memorisation"), run.by_client("memorisation")]
    assert all(len(frame) and set(frame["conditional_on"]) == {"batches"} for frame in frames)
    tables = {table.name: table for table in run_tables(run)}
    assert "conditional" in tables["measurements"].meanings["conditional_on"]


def test_adjusted_p_is_found_as_without_the_column(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        assert fedmem.read(folder).values("memorisation")["p_adjusted"].notna().any()


def test_other_runs_have_no_such_column(folders: dict[str, Path]) -> None:
    run = fedmem.read(folders["per_run"])
    for frame in (run.measurements, run.table(), run.values("memorisation"), run.by_client("memorisation")):
        assert "conditional_on" not in frame


def test_measuring_again_keeps_the_column(folders: dict[str, Path]) -> None:
    file = folders["shared"] / "measurements.parquet"
    before = file.read_bytes()
    fedmem.measure(folders["shared"])
    assert file.read_bytes() == before
