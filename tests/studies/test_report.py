"""Tests of `fedmem/studies/report.py`."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.studies.compare import ComparedRuns, compare
from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import Series
from fedmem.studies.report import Table, best_settings, excluded_note, trade_section
from tests.studies.compare_helpers import SEEDS, by_hand, small
from tests.studies.study_helpers import FIRM, LIKE, MORE, as_sweep, series_of, study_of


def test_the_front_is_over_the_seeds_that_all_settings_have(made: ComparedRuns) -> None:
    """The last setting lacks the first seed, in which all are far better: that alone must not put the others ahead."""

    def told(lift: float) -> list[tuple[str, int, bool]]:
        series = []
        for one in made.comparison.series:
            values = one.values.copy()
            values[:, 0] += lift if one.quantity.metric == "test_accuracy" else 0.0
            values[-1, 0] = np.nan
            series.append(replace(one, values=values))
        found = replace(made.comparison, series=tuple(series)).trades
        assert {trade.use.n for trade in found} == {SEEDS - 1}
        return [(trade.quantity.metric, trade.better, trade.sure) for trade in found]

    assert told(100.0) == told(0.0)
    gone = by_hand(lambda values: np.full_like(values, np.nan), made)
    assert {(trade.setting, trade.use.n) for trade in gone.trades} == {(setting, SEEDS) for setting in range(3)}
    absent = f"(without a value, so not compared: {gone.labels[3]})"
    assert all(absent in line and gone.labels[3] not in line.replace(absent, "") for line in best_settings(gone))


def test_a_front_marks_settings_that_learn_far_less(made: ComparedRuns) -> None:
    """The last setting has no memorisation, because its accuracy has collapsed."""
    series = []
    for one in made.comparison.series:
        values = one.values.copy()
        if one.quantity.metric == "test_accuracy":
            values[:] = 0.9 + 1e-3 * np.arange(values.shape[1])
            values[-1] = 0.438
        elif one.quantity.level == "global":
            values[:-1], values[-1] = 0.5, 0.0
        series.append(replace(one, values=values))
    found = replace(made.comparison, series=tuple(series))
    said = [line for line in best_settings(found) if found.labels[-1] in line]
    assert said
    assert all(re.search(rf"{found.labels[-1]} \([^;]*learns far less: test accuracy 0.44\)", line) for line in said)
    assert not any("learns far less" in line for line in best_settings(made.comparison))


def test_some_failed_seeds_are_named_and_their_pairs_dropped(made: ComparedRuns) -> None:
    """The first seed of the last setting failed: its pairs are dropped, and the number of tests stays."""

    def without(series: Series) -> Series:
        values, n = series.values.copy(), series.n.astype(np.float64)
        values[-1, 0] = n[-1, 0] = np.nan
        return replace(series, values=values, n=n)

    found = replace(made.comparison, series=tuple(map(without, made.comparison.series)))
    said = f"all pairs with them are dropped: {found.labels[3]} (seed 0)"
    assert excluded_note(found).endswith(said)
    assert excluded_note(made.comparison) == ""
    assert said in " ".join(line for line, _ in Table(found).lines(300))
    for row, whole in zip(found.rows, made.comparison.rows, strict=True):
        assert row.tests == whole.tests
        if row.contrast is not None:
            assert row.contrast.n == SEEDS - (row.setting == 3)


@pytest.mark.usefixtures("undrawn")
def test_a_setting_whose_runs_all_failed_is_on_no_front(tmp_path: Path) -> None:
    quick = small(rounds=2, runs=2, estimators=[{"kind": "exposure"}])
    vary: dict[str, list[Any]] = {"strategy.kind": ["fedavg", "tests.execution.many_scenarios_helpers:Breaking"]}
    made = compare(quick, vary=vary, seeds=(0, 1), out=tmp_path, jobs=1)
    assert len(made.trades)
    assert set(made.trades.setting) == {"fedavg"}
    assert made.trades.utility.notna().all()
    assert all("Breaking" not in line for line in best_settings(made.comparison))
    # the size of the family is fixed before the runs: one pair, at two levels
    assert not any(row.setting == 1 for row in made.comparison.rows)
    assert {row.tests for row in made.comparison.rows if row.quantity.metric == "exposure"} == {2}
    assert "They count in the number of tests" in excluded_note(made.comparison)


def test_table_fits_and_marks_results_that_are_not_significant(made: ComparedRuns) -> None:
    lines = [line for line, _ in Table(made.comparison).lines(130)]
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 130
    assert "4 settings x 3 seeds" in text
    assert "minus its reference, bits" in text
    assert "not significant (detects" in text
    assert "WHAT AGGREGATION KEEPS" in text
    assert "On the front" in text


def test_table_reports_no_impossible_values(made: ComparedRuns) -> None:
    def scattered(series: Series) -> Series:
        values = np.tile([0.0, 1.0, 0.9], (4, 1))
        values[2:] = values[2:, ::-1]
        return replace(series, values=values)

    found = replace(made.comparison, series=tuple(map(scattered, made.comparison.tested_series)))
    rows = [row for row in found.rows if row.quantity.max_difference < math.inf]
    assert any(row.detectable > row.quantity.max_difference for row in rows)
    for row in rows:
        assert row.quantity.range[0] <= row.mean.low <= row.mean.high <= row.quantity.range[1]
        if row.contrast is not None:
            assert -row.quantity.max_difference <= row.contrast.low <= row.contrast.high <= row.quantity.max_difference
    assert {(row.mean.low, row.mean.high) for row in rows if row.quantity.range == (0, 1)} == {(0.0, 1.0)}
    text = "\n".join(line for line, _ in Table(found).lines(140))
    assert "detects more than possible; seeds" in text
    assert "(detects more than possible; more seeds)" in " ".join(text.split())
    assert any(row.detectable > 1 for row in found.rows if row.quantity.metric == "exposure")  # bits have no end


def test_fronts_of_a_sweep_test_nothing() -> None:
    """krum has less memorisation by noise alone and loses accuracy; bulyan is dominated by noise alone."""
    harm, use = [LIKE, (*FIRM[:4], 0.48), MORE], [MORE, FIRM, LIKE]
    compared = study_of([series_of("canary", "global", harm), series_of("", "global", use, metric="test_accuracy")])
    assert "krum (not significantly ahead of fedavg in either" in " ".join(best_settings(compared))

    def text_of(comparison: Comparison) -> str:
        lines = [line for line, _ in Table(comparison).lines(300)]
        return " ".join([*lines, *best_settings(comparison), str(trade_section(comparison))])

    assert "by means, significant or not" in text_of(compared)
    assert "by means, not tested" in text_of(as_sweep(compared))
    assert "signific" not in text_of(as_sweep(compared))
