"""The figure: what each block takes from owning clients, and what it brings back to the aggregate."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from experiments.where.analysis import ARMS, MEMORISED, NAMES
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

ROWS = {"taken": "taken from the owning client", "returned": "brought back to the aggregate"}


def draw(table: pd.DataFrame) -> Figure:
    """One column of panels for each arm; in rows, what a block takes and what it brings back."""
    figure, grid = page_panels(5.6, len(ROWS), len(ARMS))
    styles = {kind: number for number, kind in enumerate(NAMES)}
    for line, (what, title) in zip(grid, ROWS.items(), strict=True):
        for axes, (arm, blocks) in zip(line, ARMS.items(), strict=True):
            for shift, kind in enumerate(MEMORISED[arm]):
                points = table[(table.arm == arm) & (table.what == what) & (table.kind == kind) & (table.block > 0)]
                points = points.dropna(subset="mean").sort_values("block")
                bars = interval_bars(points["mean"], points.low, points.high)
                place = points.block.astype(float) + 0.12 * shift
                axes.errorbar(place, points["mean"], bars, **setting_style(styles[kind], label=NAMES[kind]))
            draw_null(axes, 0.0, across=False, label="nothing")
            name_panel(axes, f"{arm}: {title}", 9)
            axes.set_xticks(range(1, blocks + 1))
            axes.set_xlim(0.6, blocks + 0.5)
            axes.set_xlabel("block that is swapped")
        line[0].set_ylabel("part of memorisation")
    subtitle = f"One block is swapped at a time; parts need not add up to 1. {INTERVALS}"
    return finish_page(figure, "The block of a memory depends on the kind of example", subtitle, grid, columns=4)


FIGURE = TableFigure(name="where", tables=("results",), draw=draw)
