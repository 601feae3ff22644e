"""The figure: by how much each strategy and sampler lowers memorisation at equal accuracy, locally and globally."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.matched_utility.analysis import PRIMARY
from experiments.matched_utility.arms import FEDAVG, SAMPLERS, STRATEGIES, UNIFORM
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

TASKS = {"digits": "digits", "fashion_mnist": "Fashion-MNIST", "digits, CNN": "CNN", "adapters": "adapters"}
ARMS = [*(name for name in STRATEGIES if name != FEDAVG), *(name for name in SAMPLERS if name != UNIFORM)]


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each task, a row for each strategy and then for each sampler."""
    what, share = PRIMARY
    table = table[(table.what == what) & (table.share == share)]
    tasks = {task: name for task, name in TASKS.items() if (table.task == task).any()}
    figure, grid = page_panels(5.6, 1, len(tasks), sharey=True)
    for axes, (task, name) in zip(grid[0], tasks.items(), strict=True):
        draw_arms(axes, table[table.task == task])
        name_panel(axes, name, 9)
        axes.set_xlabel("lowered by")
        axes.locator_params(axis="x", nbins=4)
    subtitle = f"FedAvg, or uniform sampling, minus each arm at the same accuracy. {INTERVALS}"
    return finish_page(figure, "Do strategies lower memorisation at equal accuracy?", subtitle, grid)


def draw_arms(axes: Axes, rows: pd.DataFrame) -> None:
    """One row for each arm, both levels a little apart; arms that do not reach the accuracy are left out."""
    draw_null(axes, 0.0, across=True, label="no difference")
    for level, shift in (("local", -0.15), ("global", 0.15)):
        points = rows[rows.level == level].set_index("arm").reindex(ARMS)
        drawn = points.assign(at=np.arange(len(ARMS)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high)
        axes.errorbar(drawn["mean"], drawn["at"], xerr=bars, **level_style(level, markersize=3))
    name_rows(axes, [name.replace("_", " ") for name in ARMS])


FIGURE = TableFigure(name="matched_utility", tables=("gates",), draw=draw)
