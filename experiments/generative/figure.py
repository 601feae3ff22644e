"""The figure: what training on an image changes, by how many copies of it there are."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.generative.analysis import DENSITY, DISTANCE, NEAREST
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

COPIES = {"once": "1 copy", "four": "4 copies", "sixteen": "16 copies"}
QUANTITIES = {
    DENSITY: ("log density, nats", 0.0, (-np.inf, np.inf)),
    DISTANCE: ("distance of sample, % of greys", 0.0, (-100.0, 100.0)),
    NEAREST: ("AUC of nearest sample", 0.5, (0.0, 1.0)),
}


def draw(table: pd.DataFrame) -> Figure:
    """A column for each quantity, a row for each number of copies."""
    figure, grid = page_panels(3.6, 1, len(QUANTITIES), sharey=True)
    for axes, (what, (name, null, bounds)) in zip(grid[0], QUANTITIES.items(), strict=True):
        draw_kinds(axes, table[table.what == what], null, bounds)
        name_panel(axes, "in − out" if what != NEAREST else "in against out", 9)
        axes.set_xlabel(name)
    subtitle = f"Digits of 4 by 4 pixels, 14 clients, a transformer. {INTERVALS}"
    return finish_page(figure, "Do samples of a federated model copy the images of its clients?", subtitle, grid)


def draw_kinds(axes: Axes, rows: pd.DataFrame, null: float, bounds: tuple[float, float]) -> None:
    """One row for each kind, both levels a little apart; what is undefined is not drawn."""
    for level, shift in (("local", -0.15), ("global", 0.15)):
        points = rows[rows.level == level].set_index("kind").reindex(list(COPIES))
        drawn = points.assign(place=np.arange(len(COPIES)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, bounds)
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    name_rows(axes, list(COPIES.values()))
    draw_null(axes, null, across=True, label="none")


FIGURE = TableFigure(name="generative", tables=("results",), draw=draw)
