"""The figure: memorisation by adapters and by full fine-tuning where both are equally useful."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.adapters.arms import CENTRAL, FEDERATED
from experiments.adapters.gates import PARTIAL, READ
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
    possible_range,
    setting_style,
)

TITLES = {
    "secret": "texts: secrets",
    "typical": "texts: passages",
    "mislabelled": "images: wrong labels",
    "random_pattern": "images: random patterns",
}
UNITS = {"exposure_gain": "bits of exposure, difference in - out", "memorisation": "memorisation"}


def draw(table: pd.DataFrame) -> Figure:
    """A row of panels for each task, a panel for each kind: each part, and full fine-tuning at its utility."""
    tasks = [task for task in READ if task in set(table.task)]
    figure, grid = page_panels(3.4 * len(tasks) + 1.2, len(tasks), 2, sharey=True)
    for line, task in zip(grid, tasks, strict=True):
        for axes, (kind, metric) in zip(line, READ[task], strict=True):
            rows = table[(table.task == task) & (table.kind == kind) & (table.metric == metric)]
            draw_kind(axes, rows, possible_range(metric))
            axes.set_xlabel(UNITS[metric])
            name_panel(axes, TITLES[kind], 9)
    subtitle = (
        "Each pair is read at one loss on the test set; arms that do not reach it in all seeds are left out. "
        f"{INTERVALS}"
    )
    return finish_page(figure, "Memorisation of adapters and of full fine-tuning at equal utility", subtitle, grid)


def draw_kind(axes: Axes, rows: pd.DataFrame, possible: tuple[float, float]) -> None:
    """From top to bottom each part of the network, below it full fine-tuning that is as useful."""
    cells = [(trained, part) for part in PARTIAL for trained in (part, "full")]
    looks = {
        ("local", FEDERATED): level_style("local"),
        ("global", FEDERATED): level_style("global"),
        ("global", CENTRAL): setting_style(1, label="one central model"),
    }
    for number, ((place, where), look) in enumerate(looks.items()):
        points = rows[(rows.place == place) & (rows["where"] == where)].set_index(["trained", "at"])
        points = points.reindex(pd.MultiIndex.from_tuples(cells, names=["trained", "at"]))
        drawn = points.assign(row=[n + 0.2 * (number - 1) for n in range(len(cells))]).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, possible)
        axes.errorbar(drawn["mean"], drawn.row, xerr=bars, **look)
    for edge in range(2, len(cells), 2):
        axes.axhline(edge - 0.5, color="0.85", linewidth=0.8, zorder=0)
    name_rows(axes, [part if trained == part else f"full, as useful as {part}" for trained, part in cells])
    draw_null(axes, 0.0, across=True)


FIGURE = TableFigure(name="adapters", tables=("results",), draw=draw)
