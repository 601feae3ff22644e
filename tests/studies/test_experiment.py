"""The frame of experiments: tables, figures, gates, and pages bound to their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fedmem.studies.experiment import (
    holm_by_family,
    over_seeds,
    page_intervals,
    table_over_seeds,
    unbound_intervals,
    verdict,
    verdict_after_holm,
    write_results,
)
from fedmem.studies.experiment_figure import TableFigure, page_panels


def test_tables_are_rounded_and_figures_are_reproducible(tmp_path: Path) -> None:
    def draw(table: pd.DataFrame) -> Figure:
        figure, grid = page_panels(2, 1, 1)
        grid[0][0].plot([0, 1], [0, table["x"][0]])
        return figure

    pictures = []
    for name, value in (("a", 1 / 3), ("b", 0.3331), ("c", 1 / 2)):
        figure = TableFigure(name="drawn", tables=("t",), draw=draw)
        write_results(tmp_path / name, {"t": pd.DataFrame({"x": [value]})}, [figure], digits=3)
        pictures.append((tmp_path / name / "drawn.png").read_bytes())
    assert (tmp_path / "a" / "t.csv").read_text() == "x\n0.333\n"
    assert pictures[0] == pictures[1] != pictures[2]


def test_holm_is_by_family_and_ignores_nan() -> None:
    table = pd.DataFrame({"family": list("aaaaab"), "p": [0.01, np.nan, 0.04, 0.03, 0.005, 0.05]})
    expected = [0.03, np.nan, 0.06, 0.06, 0.02, 0.05]
    np.testing.assert_allclose(holm_by_family(table, ["family"]), expected)


def test_verdict_follows_the_interval() -> None:
    assert [verdict(*ends) for ends in ((0.1, 1), (-1, -0.1), (0, 1))] == [
        "holds",
        "contradicted",
        "not significant",
    ]
    assert verdict(float("nan"), float("nan")) == "undefined"


def test_intervals_without_a_row_are_reported() -> None:
    table = pd.DataFrame(
        {"value": [0.123], "low": [0.1], "high": [0.2], "fall": [3.0], "fall_low": [2.0], "fall_high": [4.0]}
    )
    page = "It is .12 [.10, .20], and it falls by −3.0 [−4.0, −2.0], or 12.3 [10.0,\n 20.0] points."
    assert len(page_intervals(page)) == 3
    assert unbound_intervals(page, [table]) == []
    for wrong in (".13 [.10, .20]", "3.0 [2.0, 4.1]", "0.12 [0.20, 0.10]"):
        assert unbound_intervals(f"It is {wrong}.", [table]) == [wrong]
    assert unbound_intervals(page, []) != []


def test_stale_page_is_reported_when_tables_are_written(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("It is 0.5 [0.4, 0.6].")
    table = pd.DataFrame([{"mean": 0.5, "low": 0.4, "high": 0.6}])
    write_results(tmp_path, {"results": table}, [], digits=4)
    with pytest.warns(UserWarning, match=r"no table has: 0\.5 \[0\.4, 0\.6\]"):
        write_results(tmp_path, {"results": table + 0.1}, [], digits=4)


def test_table_over_seeds_is_that_of_each_group_by_itself() -> None:
    rng = np.random.default_rng(0)
    values = pd.DataFrame(
        {"arm": list("bbbaaa"), "level": "owner", "seed": [2, 0, 1, 0, 1, 2], "value": rng.normal(size=6)}
    )
    found = table_over_seeds(values, ["arm", "level"])
    assert found[["arm", "level"]].to_numpy().tolist() == [["b", "owner"], ["a", "owner"]]
    for row in found.itertuples():
        expected = over_seeds(values[values.arm == row.arm]["value"].to_numpy())
        assert (row.mean, row.low, row.high, row.seeds) == pytest.approx(tuple(expected.values()), abs=1e-12)


def test_a_group_with_an_undefined_seed_is_undefined() -> None:
    values = pd.DataFrame({"arm": list("aabb"), "seed": [0, 1, 0, 1], "value": [1.0, np.nan, 1.0, 3.0]})
    found = table_over_seeds(values, ["arm"])
    np.testing.assert_array_equal(found["mean"], [np.nan, 2.0])
    assert found["seeds"].tolist() == [2, 2]


def test_verdict_after_holm_needs_both() -> None:
    assert [verdict_after_holm(0.1, 1, p) for p in (0.01, 0.0499, 0.05, 0.2)] == [
        "holds",
        "holds",
        *["not significant"] * 2,
    ]
    assert [verdict_after_holm(-1, -0.1, p) for p in (0.01, 0.05)] == ["contradicted", "not significant"]
    assert verdict_after_holm(0, 1, 0.01) == "not significant"
    assert verdict_after_holm(np.nan, np.nan, 0.01) == verdict(np.nan, np.nan)
    assert verdict_after_holm(0.1, 1, np.nan) == "holds"
