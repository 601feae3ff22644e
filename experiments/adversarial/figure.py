"""The figure: memorisation, cross-influence and membership of each kind, at owners and in the aggregate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.adversarial.analysis import LIRA, MEMORY, OTHERS
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

DATA = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}
KINDS = {"adversarial": "adversarial", "poison": "poison", "typical": "ordinary"}
QUANTITIES = {
    MEMORY: ("memorisation", 0.0, (-1.0, 1.0)),
    OTHERS: ("right answers added elsewhere", 0.0, (-np.inf, np.inf)),
    LIRA: ("AUC of LiRA", 0.5, (0.0, 1.0)),
}


def draw(table: pd.DataFrame) -> Figure:
    """A row for each data set, a column for each quantity."""
    figure, grid = page_panels(4.6, len(DATA), len(QUANTITIES), sharey=True)
    for line, (data, name) in zip(grid, DATA.items(), strict=True):
        for axes, (what, (words, null, bounds)) in zip(line, QUANTITIES.items(), strict=True):
            draw_kinds(axes, table[(table.data == data) & (table.what == what)], null, bounds)
            name_panel(axes, name, 9)
            axes.set_xlabel(words)
    question = "Are adversarial and poisoned examples memorised?"
    return finish_page(figure, question, INTERVALS, grid)


def draw_kinds(axes: Axes, rows: pd.DataFrame, null: float, bounds: tuple[float, float]) -> None:
    """One row for each kind, both levels a little apart; what is undefined is not drawn."""
    for level, shift in (("local", -0.15), ("global", 0.15)):
        points = rows[rows.level == level].set_index("kind").reindex(list(KINDS))
        drawn = points.assign(place=np.arange(len(KINDS)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, bounds)
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    name_rows(axes, list(KINDS.values()))
    draw_null(axes, null, across=True, label="none")


FIGURE = TableFigure(name="adversarial", tables=("results",), draw=draw)
