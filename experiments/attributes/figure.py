"""The figure: guesses of the attribute over runs with and without the record, beside imputation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.attributes.analysis import IN, KINDS, OUT, quantity
from experiments.attributes.gates import MARITAL, RACE, SEX, WITHOUT
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

ARMS = {MARITAL: "marital status", WITHOUT: "marital status,\nrelationship unknown", RACE: "race", SEX: "sex"}
ROWS = {
    quantity("csmia", IN): "CSMIA, trained on",
    quantity("csmia", OUT): "CSMIA, not trained on",
    "imputed": "imputed",
    "mode": "mode",
}


def draw(table: pd.DataFrame) -> Figure:
    """A row for each column of the table, a column for each kind of record."""
    figure, grid = page_panels(7.0, len(ARMS), len(KINDS), sharey=True, sharex=True)
    for line, (arm, name) in zip(grid, ARMS.items(), strict=True):
        for axes, kind in zip(line, KINDS, strict=True):
            draw_guesses(axes, table[(table.arm == arm) & (table.kind == kind)])
            name_panel(axes, f"{name}\n{kind}", 8)
            axes.set_xlim(0, 1)
    for axes in grid[-1]:
        axes.set_xlabel("share guessed right")
    subtitle = f"Adult, 6 clients. {INTERVALS}"
    return finish_page(figure, "Does a model leak a sensitive column, beyond imputation?", subtitle, grid)


def draw_guesses(axes: Axes, rows: pd.DataFrame) -> None:
    """One row for each guess, both levels a little apart; an undefined value is not drawn."""
    for level, shift in (("local", -0.17), ("global", 0.17)):
        points = rows[rows.level == level].set_index("what").reindex(list(ROWS))
        drawn = points.assign(place=np.arange(len(ROWS)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, (0.0, 1.0))
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    name_rows(axes, list(ROWS.values()))


FIGURE = TableFigure(name="attributes", tables=("results",), draw=draw)
