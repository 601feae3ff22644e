"""The figure: the share of rows that a dishonest server reads, by the clients in a sum, by local steps and defences."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.dishonest_server.analysis import EXPECTED, IMPRINT
from fedmem.reporting.drawing import name_panel
from fedmem.studies.experiment_figure import (
    INTERVALS,
    TableFigure,
    finish_page,
    interval_bars,
    level_style,
    name_rows,
    page_panels,
)

ARMS = (
    "one step",
    "five small steps",
    "twenty small steps",
    "twenty whole steps",
    "more rows",
    "clipped",
    "weak noise",
    "noise",
)
DATA = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}


def draw(table: pd.DataFrame) -> Figure:
    """A column for each data set, a row for each arm; a cross is the formula."""
    figure, grid = page_panels(4.2, 1, len(DATA), sharey=True)
    for axes, (data, name) in zip(grid[0], DATA.items(), strict=True):
        draw_arms(axes, table[table.data == data])
        name_panel(axes, name, 9)
        axes.set_xlabel("share of rows that are exact; x: formula")
    subtitle = f"imprint, in the message of a client and in the sum of all four clients of a round. {INTERVALS}"
    return finish_page(figure, "What does a server read that sends a changed model?", subtitle, grid)


def draw_arms(axes: Axes, rows: pd.DataFrame) -> None:
    """One row for each arm, the message and the sum of all clients a little apart."""
    for level, shift in (("local", -0.15), ("global", 0.15)):
        of_place = rows[rows.level == level]
        points = of_place[of_place.what == IMPRINT].set_index("arm").reindex(list(ARMS))
        drawn = points.assign(at=np.arange(len(ARMS)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, (0.0, 1.0))
        axes.errorbar(drawn["mean"], drawn["at"], xerr=bars, **level_style(level))
        formula = of_place[of_place.what == IMPRINT + EXPECTED].set_index("arm").reindex(["one step", "more rows"])
        axes.plot(formula["mean"], [ARMS.index(arm) + shift for arm in formula.index], "x", color="0.3", markersize=4)
    name_rows(axes, list(ARMS))


FIGURE = TableFigure(name="dishonest_server", tables=("results",), draw=draw)
