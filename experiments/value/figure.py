"""The figure: values of kinds beside their memorisation, and values of clients against retraining."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.proxies.analysis import KIND, WRONG
from experiments.value.analysis import MEMORY, RETRAINING, VALUE
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

NAMES = {KIND: "ordinary", WRONG: "wrong labels"}
VALUATIONS = {"gtg": "GTG-Shapley", "leave_one_out": "left out of the sum", "fed_influence_diagonal": "Xue et al."}
PANELS = {
    ("banzhaf", VALUE): ("Banzhaf value", "nats"),
    ("shapley", VALUE): ("Shapley value", "nats"),
    ("banzhaf", MEMORY): ("memorisation", "probability"),
    ("clients", RETRAINING): ("clients: agreement with retraining", "rank correlation"),
}


def draw(table: pd.DataFrame) -> Figure:
    """Three panels about kinds of examples, and one about clients."""
    figure, grid = page_panels(6.0, 2, 2)
    for axes, ((part, what), (title, unit)) in zip(
        [axes for line in grid for axes in line], PANELS.items(), strict=True
    ):
        names = VALUATIONS if what == RETRAINING else NAMES
        draw_rows(axes, table[(table.part == part) & (table.what == what)], names)
        name_panel(axes, title, 9)
        axes.set_xlabel(unit)
    return finish_page(figure, "Is what is valuable what is memorised?", f"Digits. {INTERVALS}", grid)


def draw_rows(axes: Axes, rows: pd.DataFrame, names: dict[str, str]) -> None:
    """One row for each name, both levels a little apart; what is undefined is not drawn."""
    for level, shift in (("local", -0.17), ("global", 0.17)):
        points = rows[rows.level == level].set_index("of").reindex(list(names))
        drawn = points.assign(place=np.arange(len(names)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, (-1.0, 1.0))
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    name_rows(axes, list(names.values()))
    draw_null(axes, 0.0, across=True, label="none")


FIGURE = TableFigure(name="value", tables=("results",), draw=draw)
