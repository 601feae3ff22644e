"""The content of a run has every number of its tables, with its interval, under a name of its own."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from fedmem.contracts.measurement import Labels
from fedmem.results.columns import COLUMNS
from fedmem.results.read import Run, read
from fedmem.sharing.run_content import Points, finished_seconds, parameters_of, run_content, run_tables
from tests.results.read_helpers import write
from tests.results.top_helpers import with_el2n
from tests.sharing.sharing_helpers import finished_run


@pytest.fixture(scope="module")
def run() -> Run:
    return read(finished_run())


def test_series_have_the_values_of_the_measurements(run: Run) -> None:
    (exported,) = run_content(run).runs
    points = {(scalar.name, scalar.step): scalar.value for scalar in exported.scalars}
    assert len(points) == len(exported.scalars)
    rows = run.values("memorisation", scope="round")
    compared = 0
    for _, row in rows.iterrows():
        for ending, column in (("", "value"), (".low", "low"), (".high", "high")):
            value = points.get((f"memorisation/{row['level']}/{row['kind']}{ending}", row["round"]))
            assert (value is None and math.isnan(row[column])) or value == row[column]
            compared += value is not None
    assert compared >= 9
    whole = run.values("memorisation")
    for _, row in whole.iterrows():
        high = points.get((f"summary/memorisation/{row['level']}/{row['kind']}.high", 2), math.nan)
        assert high == row["high"] or math.isnan(row["high"])
    assert whole["high"].notna().sum() >= 3


def test_undefined_values_are_counted_not_written(run: Run) -> None:
    content = run_content(run)
    frame = run.measurements
    kinds = {*run.audit["kind"], ""}
    rows = frame[
        frame["run"].isna() & (frame["client"] == -1) & (frame["contrast"] == "") & frame["subject"].isin(kinds)
    ]
    assert content.left_out == int((~rows["value"].map(math.isfinite)).sum()) > 0


def test_every_column_of_a_run_is_described(run: Run) -> None:
    for table in run_tables(run):
        frame = table.frame()
        assert len(frame), table.name
        assert [name for name in frame.columns if name not in table.meanings] == []
        # `draw` is there only where examples are in or out together
        assert [name for name in COLUMNS[table.name] if name not in frame.columns and name != "draw"] == []


def test_signals_are_a_table_of_a_run_that_has_some(run: Run, tmp_path: Path) -> None:
    assert "signals" not in [table.name for table in run_tables(run)]
    made = with_el2n(tmp_path / "run")
    (signals,) = (table for table in run_tables(made) if table.name == "signals")
    frame = signals.frame()
    assert len(frame) == 16 * 6
    assert sorted(frame.columns) == sorted(COLUMNS["signals"])
    assert frame["value"].min() == 0.5


def test_ranks_and_inclusion_have_a_row_for_each_entry(run: Run) -> None:
    tables = {table.name: table.frame() for table in run_tables(run)}
    assert len(tables["ranks"]) == run.references["subjects"].map(len).sum()
    assert (tables["ranks"]["less"] + tables["ranks"]["ties"] <= tables["ranks"]["count"]).all()
    coins = tables["inclusion"].pivot(index="subject", columns="run", values="is_in").to_numpy()
    assert (coins == [list(row) for row in run.audit["is_in"]]).all()
    assert (coins.sum(axis=1) == 4).all()


def test_a_run_without_summary_and_references_is_exported(tmp_path: Path) -> None:
    write(tmp_path / "run")
    content = run_content(read(tmp_path / "run"))
    tables = {table.name: table.frame() for table in content.tables}
    assert "summary" not in tables
    assert Counter(scalar.name for scalar in content.runs[0].scalars) == {
        "memorisation/local/typical": 1, "memorisation/local/typical.low": 1, "memorisation/local/typical.high": 1,
    }  # fmt: skip
    assert content.left_out == 2


def test_equal_clean_names_stay_separate() -> None:
    points = Points()
    for kind in ("a b", "a/b", "a b", "a_b-2"):
        points.add("", ("auc", Labels(), "local", kind), 1, 0.5, math.nan, math.nan)
    assert [point.name for point in points.scalars] == [f"auc/local/a_b{end}" for end in ("", "-2", "", "-2-2")]


def test_parameters_have_each_value_by_its_path(run: Run) -> None:
    parameters = parameters_of(run.scenario)
    assert parameters["strategy.kind"] == "fedavg"
    assert parameters["injections.1.kind"] == "mislabelled"
    assert parameters["model.hidden.0"] == "8"


def test_a_wrong_time_is_no_time() -> None:
    assert finished_seconds({"finished": "yesterday"}) == finished_seconds({"finished": 3}) == 0.0
