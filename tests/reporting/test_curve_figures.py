"""Tests of `fedmem/reporting/curve_figures.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.measurement import Labels, Measurement
from fedmem.reporting.curve_figures import SummaryFigure, curve_figures
from fedmem.reporting.sections import omitted_measures
from fedmem.reporting.summary import Summary
from fedmem.reporting.summary_figures import summary_figures
from fedmem.results.read import read
from tests.reporting.page_helpers import KINDS, SCENARIO, row, rows
from tests.results.read_helpers import bank, write

FIRST, SECOND = KINDS


def summary_of(folder: Path, *more: Measurement) -> Summary:
    write(folder, bank(), measurements=[*rows(), *more], scenario_yaml=SCENARIO)
    return Summary(read(folder))


def curve(metric: str, values: dict[int, float], **options: Any) -> list[Measurement]:
    """Rows at the owner, .3 higher, and at the aggregate, by the rounds since use; n is 20 minus these."""
    return [
        row(metric, value + 0.3 * (level == "local"), FIRST, Labels.of(since=since, place=place), level=level,
            n=20 - since, **options)
        for since, value in values.items()
        for level, place in (("local", "owner"), ("global", None))
    ]  # fmt: skip


def drawn(summary: Summary) -> list[SummaryFigure]:
    return list(curve_figures(summary))


def test_curves_are_where_their_numbers_are(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "run", *curve("decay", {10: 0.1, 0: 0.5, 2: 0.4}))
    (figure,) = drawn(summary)
    axes: Any
    (axes,) = figure.drawing.grid
    assert axes.get_title(loc="left") == FIRST, "a kind without values has no panel"
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert lines["global"] == ([0, 2, 10], [0.5, 0.4, 0.1])
    assert lines["local"][0] == [0, 2, 10]
    assert lines["local"][1] == pytest.approx([0.8, 0.7, 0.4])
    spans = {tuple(line.get_ydata()) for line in axes.lines if list(line.get_xdata()) == [2, 2]}
    assert any(span == pytest.approx((0.3, 0.5)) for span in spans)
    breaks = [line for line in axes.lines if list(line.get_xdata()) == [0, 0] and line.get_linewidth() > 3]
    assert [list(line.get_ydata()) for line in breaks] == [pytest.approx([0.8, 0.5])]
    counts = {text.get_position()[0]: text.get_text() for text in axes.texts}
    assert counts == {0: "20", 2: "18", 10: "10"}
    assert axes.get_xlabel() == "rounds since the example was last trained on"
    assert "95 % intervals" in figure.caption
    assert figure.name == "decay"


def test_undefined_values_are_missing(tmp_path: Path) -> None:
    nothing = {"low": math.nan, "high": math.nan}
    summary = summary_of(tmp_path / "run", *curve("decay_share", {1: 0.5, 2: math.nan, 3: 0.2}, **nothing))
    (figure,) = drawn(summary)
    axes: Any = figure.drawing.grid[0]
    lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert lines["global"] == [1, 3]
    assert not [line for line in axes.lines if list(line.get_xdata()) == [3, 3]]


def test_only_measures_that_declare_a_label_are_curves(tmp_path: Path) -> None:
    more = [
        row("vulnerable_share", 0.6, FIRST, "place=owner attack=lira", level="local"),
        *curve("decay", {0: 0.5, 1: 0.2}),
    ]
    summary = summary_of(tmp_path / "run", *more)
    assert [figure.name for figure in drawn(summary)] == ["decay"]
    assert [figure.name for figure in summary_figures(summary)] == ["decay", "lira_vulnerable_share_summary"]


def test_long_curves_have_one_name_and_the_order_of_numbers(tmp_path: Path) -> None:
    summary = summary_of(tmp_path / "run", *curve("decay", {0: 0.5, 2: 0.4, 10: 0.1}))
    assert omitted_measures(summary).count("decay of memorisation") == 1
    assert "since" not in omitted_measures(summary)
    order = [variant.labels.get("since") for variant in summary.measures if variant.metric == "decay"]
    assert order == [0, 2, 10]


def test_the_shared_axis_fits_the_curves_of_all_panels(tmp_path: Path) -> None:
    """Limits of the first panel alone would cut the curves of the second."""
    high = [
        row("decay", 4.0 + since, SECOND, Labels.of(since=since, place=place), level=level)
        for since in (0, 2)
        for level, place in (("local", "owner"), ("global", None))
    ]
    (figure,) = drawn(summary_of(tmp_path / "run", *curve("decay", {0: 0.5, 2: 0.4}), *high))
    axes: Any
    for axes in figure.drawing.grid:
        low, top = axes.get_ylim()
        assert low < 0.4
        assert top > 6.0
