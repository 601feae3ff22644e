"""The figure: what is left of memory and of exposure, by rounds since the owning client last took part."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.forgetting.analysis import KINDS, SECRETS, SINCE
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


COPIES = {SECRETS[0]: "secrets, four times", SECRETS[1]: "secrets, sixteen times"}
BITS = {"bits": "exposure at the aggregate", "owner_bits": "at the client's own model"}


def draw(table: pd.DataFrame) -> Figure:
    """The share of memorisation left of each kind of digits and of secrets, and exposure of secrets at both levels."""
    figure, grid = page_panels(5.6, 2, len(KINDS))
    shares = table[table.what == "left"]
    for axes, kind in zip(grid[0], KINDS, strict=True):
        for number, (batches, label) in enumerate(BATCHES.items()):
            _line(axes, shares[(shares.kind == kind) & (shares.batches == batches)], number, label)
        name_panel(axes, TITLES[kind], 9)
    panels = {"left": "secrets in texts", **BITS}
    for axes, (what, title) in zip(grid[1], panels.items(), strict=True):
        for number, (kind, label) in enumerate(COPIES.items(), start=len(BATCHES)):
            _line(axes, table[(table.what == what) & (table.kind == kind)], number, label)
        name_panel(axes, title, 9)
    for axes in (axes for line in grid for axes in line):
        draw_null(axes, 0.0, across=False)
        axes.set_xlabel("rounds since the client took part")
        axes.set_xlim(-0.4, SINCE[-1] + 0.5)
        axes.set_xticks(SINCE)
    for axes in (*grid[0], grid[1][0]):
        axes.set_ylim(bottom=0, top=1)
    for axes in grid[1][1:]:
        axes.set_ylim(bottom=-0.5, top=10)
    grid[0][0].set_ylabel("share of memorisation left")
    grid[1][0].set_ylabel("share of memorisation left")
    grid[1][1].set_ylabel("exposure gain, bits")
    subtitle = f"Shares are of what the aggregate had when the client took part. {INTERVALS}"
    return finish_page(figure, "Memory fades while a client is away", subtitle, grid, columns=2)


def _line(axes: Axes, rows: pd.DataFrame, number: int, label: str) -> None:
    points = rows.dropna(subset="mean").sort_values("since")
    low, high = (-10.0, 10.0) if rows.what.isin(list(BITS)).all() else (0.0, 1.0)
    bars = interval_bars(points["mean"], points.low, points.high, (low, high))
    style = setting_style(number, linestyle="-", label=label)
    axes.errorbar(points.since + 0.12 * (number % 2), points["mean"], bars, **style)


FIGURE = TableFigure(name="forgetting", tables=("results",), draw=draw)
