"""Tests of `fedmem/studies/tables.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedmem.results.read import read
from fedmem.studies.compare import ComparedRuns
from fedmem.studies.comparison import Comparison
from fedmem.studies.report import Table
from fedmem.studies.tables import differences, put, typed_settings, within
from tests.studies.compare_helpers import one, rows_of
from tests.studies.study_helpers import FIRM, LIKE, MORE, series_of, study_of


def test_differences_are_those_of_the_runs(made: ComparedRuns) -> None:
    place = {"metric": "exposure", "level": "global", "subject": "random_pattern", "place": ""}
    settings = [np.array([one(frame, **place) for frame in rows_of(made, setting)]) for setting in range(4)]
    table = made.differences
    chosen = table[(table.metric == "exposure") & (table.level == "global") & (table["with"] == "")]
    assert chosen.setting.tolist() == list(made.comparison.labels)
    assert chosen["mean"].tolist() == pytest.approx([values.mean() for values in settings])
    # fedmedian is compared with fedavg under the same sampler, and fedavg with nobody
    assert chosen.reference.tolist() == ["", "", "fedavg, uniform size=4", "fedavg, everyone"]
    assert chosen.difference.tolist()[2:] == pytest.approx([(settings[i] - settings[i - 2]).mean() for i in (2, 3)])
    assert chosen.p.tolist()[2:] == pytest.approx(
        [stats.ttest_rel(settings[i], settings[i - 2]).pvalue for i in (2, 3)]
    )
    assert chosen.unit.tolist() == ["bits"] * 4
    assert chosen["sampler"].tolist()[:2] == ["{kind: uniform, size: 4}", "{kind: everyone}"]


def test_retention_without_effect_is_shown_as_undefined(made: ComparedRuns) -> None:
    def lines(comparison: Comparison) -> list[str]:
        text = "\n".join(line for line, _ in Table(comparison).lines(130))
        return text.partition("WHAT AGGREGATION KEEPS")[2].splitlines()

    none = replace(made.comparison, series=tuple(replace(s, values=s.null + 0.0) for s in made.comparison.series))
    assert none.retention
    assert all(math.isnan(kept.ratio.value) for kept in none.retention)
    assert sum("undefined" in line for line in lines(none)) == len(none.retention)
    # off by rounding, in seeds with other numbers of examples: nothing is there
    counts = np.array([64.0, 56.0, 60.0])
    near = replace(
        none,
        series=tuple(
            replace(s, values=s.null * (1 + 3e-16) + 1e-300, n=s.n * 0 + counts[: s.n.shape[1]]) for s in none.series
        ),
    )
    assert all(math.isnan(kept.ratio.value) for kept in near.retention)


def test_rounds_and_trades_are_those_of_the_runs(made: ComparedRuns) -> None:
    table = made.rounds
    chosen = table[(table.metric == "exposure") & (table.level == "global") & (table["with"] == "")]
    assert sorted(set(chosen["round"])) == [0, 2, 4]
    frame = read(made.outcomes[0].folder).measurements
    frame = frame[
        (frame.scope == "round") & (frame["round"] == 2) & (frame.metric == "exposure") & (frame.level == "global")
    ]
    assert chosen[(chosen["round"] == 2) & (chosen.seed == 0)].value.tolist()[0] == frame.value.tolist()[0]
    trades = made.trades
    accuracy = [one(frame, metric="test_accuracy", level="global", subject="") for frame in rows_of(made, 3)]
    assert trades[trades.setting == made.comparison.labels[3]].utility.tolist()[0] == pytest.approx(np.mean(accuracy))
    assert set(trades.level) == {"global"}


def test_numeric_axes_are_numeric_columns(tmp_path: Path) -> None:
    settings = tuple((("client.lr", lr), ("strategy.kind", kind)) for lr in ("0.3", "1e-1") for kind in ("fedavg", "2"))
    assert [row["client.lr"] for row in typed_settings(settings)] == [0.3, 0.3, 0.1, 0.1]
    assert {row["strategy.kind"] for row in typed_settings(settings)} == {"fedavg", "2"}
    put(tmp_path, "results", list(typed_settings(settings)))
    frame = pd.read_parquet(tmp_path / "results.parquet")
    assert (frame["client.lr"] == 0.3).sum() == 2
    assert [type(row["clients"]) for row in typed_settings(((("clients", "10"),),))] == [int]


def test_a_table_without_rows_can_be_read(tmp_path: Path) -> None:
    put(tmp_path, "trades", [])
    assert pd.read_csv(tmp_path / "trades.csv").empty
    assert pd.read_parquet(tmp_path / "trades.parquet").empty


def test_an_effect_and_its_interval_have_one_unit() -> None:
    settings = study_of([series_of("canary", "global", [FIRM, MORE, LIKE])])
    kinds = study_of([series_of(kind, "global", [values]) for kind, values in (("canary", FIRM), ("record", MORE))])
    rows = [row for row in differences(settings) if row["reference"]] + list(within(kinds))
    assert len(rows) == 3
    for row in rows:
        assert row["unit"] == "points"
        assert row["effect_low"] < row["effect"] < row["effect_high"]
        for end in ("", "_low", "_high"):
            assert row[f"effect{end}"] == pytest.approx(100 * row[f"difference{end}"])
