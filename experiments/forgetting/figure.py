"""The figure: the share of memory that is left, by rounds since the owning client last took part."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from experiments.forgetting.analysis import KINDS
from fedmem.reporting.drawing import name_panel
from fedmem.studies.experiment_figure import (
    INTERVALS,
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    page_panels,
    setting_style,
)

TITLES = {"once": "patterns, once", "four_times": "patterns, four times", "mislabelled": "wrong labels"}
BATCHES = {"per_run": "random batches", "shared": "the same batches in all runs"}


def draw(table: pd.DataFrame) -> Figure:
    """One panel for each kind: memory with random batches, and the attack's score with random and shared ones."""
    figure, grid = page_panels(3.4, 1, len(KINDS))
    for axes, kind in zip(grid[0], KINDS, strict=True):
        for number, (batches, label) in enumerate(BATCHES.items()):
            points = table[(table.kind == kind) & (table.what == "left") & (table.batches == batches)]
            points = points.dropna(subset="mean").sort_values("since")
            bars = interval_bars(points["mean"], points.low, points.high, (0.0, 1.0))
            style = setting_style(number, linestyle="-", label=label)
            axes.errorbar(points.since + 0.12 * number, points["mean"], bars, **style)
        draw_null(axes, 0.0, across=False)
        name_panel(axes, TITLES[kind], 9)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("rounds since the client took part")
    grid[0][0].set_ylabel("share of memorisation left")
    subtitle = f"At the aggregate, of what it had in the round in which the client took part. {INTERVALS}"
    return finish_page(figure, "Memory fades while a client is away", subtitle, grid, columns=2)


FIGURE = TableFigure(name="forgetting", tables=("results",), draw=draw)
