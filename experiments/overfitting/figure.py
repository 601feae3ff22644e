"""The figure: memorisation of each kind and the generalisation gap by round, and the round of the lowest test loss."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.overfitting.analysis import GAP, MEMORY, ROUND
from fedmem.reporting.drawing import name_panel
from fedmem.studies.experiment_figure import (
    INTERVALS,
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    level_style,
    page_panels,
)

DATA = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}
PANELS = {(MEMORY, "mislabelled"): "wrong labels", (MEMORY, "typical"): "ordinary rows", (GAP, ""): "gap"}


def draw(table: pd.DataFrame) -> Figure:
    """A row for each data set, a column for each quantity."""
    plain = table[table.arm == "plain"]
    figure, grid = page_panels(5.6, len(DATA), len(PANELS), sharey=True, sharex=True)
    for line, (data, name) in zip(grid, DATA.items(), strict=True):
        of_data = plain[plain.data == data]
        for axes, ((what, kind), words) in zip(line, PANELS.items(), strict=True):
            draw_rounds(axes, of_data[(of_data.what == what) & (of_data.kind.fillna("") == kind)])
            mark_lowest(axes, of_data[of_data.what == ROUND])
            name_panel(axes, f"{name}, {words}", 9)
    for axes in grid[-1]:
        axes.set_xlabel("round")
    for line in grid:
        line[0].set_ylabel("memorisation, gap")
    subtitle = f"Vertical lines: mean round of the lowest test loss. {INTERVALS}"
    return finish_page(figure, "Are examples memorised before the test loss rises?", subtitle, grid)


def draw_rounds(axes: Axes, rows: pd.DataFrame) -> None:
    """A line for each level; what is undefined is not drawn."""
    for level in ("local", "global"):
        points = rows[(rows.level == level) & rows["at"].str.isdecimal()].dropna(subset="mean")
        points = points.assign(round=points["at"].astype(int)).sort_values("round")
        bars = interval_bars(points["mean"], points.low, points.high, (-1.0, 1.0))
        axes.errorbar(points["round"], points["mean"], yerr=bars, **level_style(level, linestyle="-", markersize=3))
    draw_null(axes, 0.0, across=False)


def mark_lowest(axes: Axes, rows: pd.DataFrame) -> None:
    """A vertical line at the round of the lowest test loss of each level."""
    for level in ("local", "global"):
        (at,) = rows[rows.level == level]["mean"]
        axes.axvline(at, color=level_style(level)["color"], linestyle=":", linewidth=1)


FIGURE = TableFigure(name="overfitting", tables=("results",), draw=draw)
