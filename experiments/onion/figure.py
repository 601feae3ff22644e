"""The figure: how much more the examples that stay are exposed than with a matched random removal."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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

ROWS = {
    ("owner", "inner"): "memorised at clients",
    ("aggregate", "inner"): "vulnerable in the aggregate",
    ("one_client", "same_client"): "one client's: its own rows",
    ("one_client", "other_clients"): "one client's: other rows",
}
"""Selection and group -> the name of its row: the outer layer that is removed, and whose rows are measured."""

PANELS = {"memorisation": "memorisation, difference", "auc": "AUC, difference", "tpr": "TPR at 1 %, difference"}


def draw(table: pd.DataFrame) -> Figure:
    """One panel for each measure, a row for each layer, both levels beside each other."""
    figure, grid = page_panels(3.2, 1, len(PANELS), sharey=True)
    for axes, (measure, title) in zip(grid[0], PANELS.items(), strict=True):
        draw_rows(axes, table[(table.measure == measure) & (table.contrast == "difference")])
        draw_null(axes, 0.0, across=True, label="no difference")
        name_panel(axes, title, 9)
        axes.set_xlabel("minus matched rows")
    subtitle = f"Rise without the outer layer minus rise without matched random rows. {INTERVALS}"
    return finish_page(figure, "Does removing an outer layer expose the rows that stay?", subtitle, grid)


def draw_rows(axes: Axes, points: pd.DataFrame) -> None:
    """One row for each layer and group."""
    for level, shift in (("local", -0.15), ("global", 0.15)):
        of_level = points[points.level == level].set_index(["selection", "group"]).reindex(list(ROWS))
        drawn = of_level.assign(place=np.arange(len(ROWS)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high)
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    name_rows(axes, list(ROWS.values()))


FIGURE = TableFigure(name="onion", tables=("results",), draw=draw)
