"""The figure: the share of identified rows by what is known and by epsilon, with the bounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.shadow_federations.analysis import BOUND, IDENTIFIED
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

PANELS = {
    "what is known": {
        "known": "weights, one batch",
        "known small batches": "weights, batches of 16",
        "unknown small batches": "weights, not the batches",
        "unknown weights": "one batch, not the weights",
        "unknown weights, known small batches": "batches of 16, not the weights",
    },
    "noise, all else known": {
        "epsilon 1000": "ε = 1000",
        "epsilon 10": "ε = 10",
        "epsilon 1": "ε = 1",
    },
}


def draw(table: pd.DataFrame) -> Figure:
    """A panel for what is known, and one for noise; a row for each arm."""
    figure, grid = page_panels(3.6, 1, len(PANELS))
    for axes, (title, arms) in zip(grid[0], PANELS.items(), strict=True):
        draw_arms(axes, table, list(arms))
        name_rows(axes, list(arms.values()))
        draw_null(axes, 0.125, across=True, label="guessing")
        name_panel(axes, title, 9)
        axes.set_xlabel("share of rows identified")
        axes.set_xlim(-0.03, 1.05)
    subtitle = f"Eight candidates, 64 federations of digits. {INTERVALS}"
    return finish_page(figure, "Which row was a client trained on?", subtitle, grid)


def draw_arms(axes: Axes, rows: pd.DataFrame, arms: list[str]) -> None:
    """One row for each arm, both levels a little apart, and the bound where there is one."""
    for level, shift in (("local", -0.15), ("global", 0.15)):
        points = rows[(rows.what == IDENTIFIED) & (rows.level == level)].set_index("arm").reindex(arms)
        drawn = points.assign(place=np.arange(len(arms)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, (0.0, 1.0))
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    bound = rows[(rows.what == BOUND) & (rows.level == "local")].set_index("arm").reindex(arms)["mean"]
    if bound.notna().any():
        axes.plot(bound, np.arange(len(arms)), "|", color="black", markersize=16, label="bound of the guarantee")


FIGURE = TableFigure(name="shadow_federations", tables=("results",), draw=draw)
