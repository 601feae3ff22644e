"""Tests of `fedmem/reporting/summary_figures.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.measurement import Measurement
from fedmem.reporting.curve_figures import SummaryFigure
from fedmem.reporting.summary import Summary
from fedmem.reporting.summary_figures import summary_figures
from fedmem.results.read import read
from tests.reporting.page_helpers import KINDS, SCENARIO, row, rows
from tests.results.read_helpers import bank, write

FIRST, SECOND = KINDS


def drawn(folder: Path, *more: Measurement) -> list[SummaryFigure]:
    write(folder, bank(), measurements=[*rows(), *more], scenario_yaml=SCENARIO)
    return list(summary_figures(Summary(read(folder))))


def test_a_measure_over_rounds_is_drawn_elsewhere(tmp_path: Path) -> None:
    assert drawn(tmp_path / "run") == []


def test_values_of_the_summary_are_where_their_numbers_are(tmp_path: Path) -> None:
    more = [
        row("vulnerable_share", 0.6, FIRST, "place=owner attack=lira", level="local", low=0.4, high=0.7, n=24),
        row("vulnerable_share", 0.2, FIRST, "attack=lira", low=math.nan, high=math.nan, n=20),
        row("memorised_share", 0.1, FIRST, "place=owner attack=lira", level="local", n=24),
        row("memorised_share", math.nan, SECOND, "attack=lira", n=24),
    ]
    (figure,) = drawn(tmp_path / "run", *more)
    # a kind without a finite value has no panel
    axes: Any
    (axes,) = figure.drawing.grid
    assert axes.get_label() == f"{FIRST} (n = 20 to 24)"
    points = {
        (line.get_label(), float(line.get_xdata()[0])): float(line.get_ydata()[0])
        for line in axes.lines
        if line.get_label() in ("local", "global")
    }
    assert points.keys() == {("local", 0.6), ("global", 0.2), ("local", 0.1)}
    rows_of_axis = [label.get_text() for label in axes.get_yticklabels()]
    for (_, value), y in points.items():
        assert ("vulnerable" if value > 0.15 else "memorised") in rows_of_axis[round(y)]
    spans = [tuple(map(float, line.get_xdata())) for line in axes.lines if len(set(line.get_xdata())) == 2]
    assert spans == [pytest.approx((0.4, 0.7)), pytest.approx((0.0, 0.2))]
    assert "95 % intervals" in figure.caption


def test_measures_with_other_nulls_have_their_own_figure(tmp_path: Path) -> None:
    more = [
        row(name, 0.6, FIRST, "place=owner attack=lira", level="local") for name in ("vulnerability", "memorised_share")
    ]
    figures = drawn(tmp_path / "run", *more)
    assert len({figure.name for figure in figures}) == 2
    grids: list[Any] = [figure.drawing.grid[0] for figure in figures]
    lines = [line for axes in grids for line in axes.lines if line.get_linestyle() == ":"]
    nulls = [line.get_xdata()[0] for line in lines]
    assert sorted(nulls) == [0.0, 0.5]
