"""The figure: memorisation and membership of each kind, by what was left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.selection.analysis import KINDS, LIRA, MEMORY
from fedmem.reporting.drawing import name_panel
from fedmem.studies.experiment_figure import (
    INTERVALS,
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    level_style,
    name_rows,
    page_panels,
)

ARMS = {
    "all rows": "all rows, all clients",
    "random": ".15 of rows left out at random",
    "loss": ".15 left out by loss",
    "el2n": ".15 left out by EL2N",
    "uniform": "6 of 20 clients, uniform",
    "wary": "6 of 20 clients, wary",
}
QUANTITIES = {MEMORY: ("memorisation", 0.0), LIRA: ("AUC of LiRA", 0.5)}


def draw(table: pd.DataFrame) -> Figure:
    """A row for each quantity, a column for each kind of rows."""
    figure, grid = page_panels(7.0, len(QUANTITIES), len(KINDS), sharey=True, sharex="row")
    for line, (what, (name, null)) in zip(grid, QUANTITIES.items(), strict=True):
        for axes, kind in zip(line, KINDS, strict=True):
            draw_arms(axes, table[(table.what == what) & (table.kind == kind)], null)
            name_panel(axes, kind, 9)
            axes.set_xlabel(name)
    subtitle = f"Digits, 20 clients. {INTERVALS}"
    return finish_page(figure, "What does leaving out risky rows or clients change, and for whom?", subtitle, grid)


def draw_arms(axes: Axes, rows: pd.DataFrame, null: float) -> None:
    """One row for each arm, both levels a little apart; what is undefined is not drawn."""
    for level, shift in (("local", -0.17), ("global", 0.17)):
        points = rows[rows.level == level].set_index("arm").reindex(list(ARMS))
        drawn = points.assign(place=np.arange(len(ARMS)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, (-1.0, 1.0))
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    name_rows(axes, list(ARMS.values()))
    draw_null(axes, null, across=True, label="none")


FIGURE = TableFigure(name="selection", tables=("results",), draw=draw)
