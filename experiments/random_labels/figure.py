"""The figure: memorisation of random labels by the round, for each width, at owners and in the aggregate."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.random_labels.analysis import MEMORY
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
PLACES = {"two clients": "random labels at 2 of 8", "all clients": "random labels at all"}
LINES = {"8 units": ":", "64 units": "--", "256 units": "-"}


def draw(table: pd.DataFrame) -> Figure:
    """A row for each data set, a column for which clients have random labels."""
    figure, grid = page_panels(5.6, len(DATA), len(PLACES), sharey=True, sharex=True)
    of_random = table[(table.what == MEMORY) & (table.kind == "random_label")]
    for line, (data, name) in zip(grid, DATA.items(), strict=True):
        for axes, (place, words) in zip(line, PLACES.items(), strict=True):
            draw_widths(axes, of_random[of_random.data == data], place)
            name_panel(axes, f"{name}, {words}", 9)
    for axes in grid[-1]:
        axes.set_xlabel("round")
    for axes in (line[0] for line in grid):
        axes.set_ylabel("memorisation")
    subtitle = f"Hidden units: 8 dotted, 64 dashed, 256 solid. {INTERVALS}"
    return finish_page(figure, "Do clients fit labels that mean nothing, and does the aggregate?", subtitle, grid)


def draw_widths(axes: Axes, rows: pd.DataFrame, place: str) -> None:
    """A line for each width and level; what is undefined is not drawn."""
    for level in ("local", "global"):
        for width, style in LINES.items():
            points = rows[(rows.level == level) & (rows.arm == f"{place}, {width}")].dropna(subset="mean")
            points = points.sort_values("round")
            bars = interval_bars(points["mean"], points.low, points.high, (-1.0, 1.0))
            look = level_style(level, linestyle=style, markersize=3)
            axes.errorbar(points["round"], points["mean"], yerr=bars, **look)
    draw_null(axes, 0.0, across=False)


FIGURE = TableFigure(name="random_labels", tables=("results",), draw=draw)
