"""The figure: agreement with memorisation, and the linear datamodeling score, at both levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.influence.analysis import PREDICTS, RANKS
from experiments.proxies.analysis import KIND
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

MODELS = {"logistic": "logistic regression", "mlp": "MLP"}
NAMES = {
    "influence_function": "influence function",
    "ekfac": "the same, EK-FAC",
    "tracin": "TracIn",
    "trak": "TRAK",
    "representer": "representer value",
    "grad_norm": "gradient norm",
    "datamodel": "in minus out",
}
QUESTIONS = {
    (RANKS, KIND): ("rank correlation with memorisation", "agreement"),
    (PREDICTS, "test"): ("linear datamodeling score, test margins", "score"),
}


def draw(table: pd.DataFrame) -> Figure:
    """A row for each question, a column for each network."""
    figure, grid = page_panels(7.5, len(QUESTIONS), len(MODELS), sharey=True, sharex=True)
    rows = table.assign(of=table["of"].where(~table.model.str.contains("EK-FAC"), "ekfac"))
    rows = rows.assign(model=rows.model.str.partition(",")[0])
    for line, ((question, targets), (title, _)) in zip(grid, QUESTIONS.items(), strict=True):
        for axes, (model, name) in zip(line, MODELS.items(), strict=True):
            asked = rows[(rows.question == question) & (rows.targets == targets) & (rows.model == model)]
            draw_approximations(axes, asked)
            name_panel(axes, f"{name}: {title}", 9)
    for axes in grid[-1]:
        axes.set_xlabel("correlation")
    subtitle = f"Ordinary examples; agreement is from other runs and corrected for noise. {INTERVALS}"
    return finish_page(figure, "Which approximation of influence agrees with retraining?", subtitle, grid)


def draw_approximations(axes: Axes, rows: pd.DataFrame) -> None:
    """One row for each approximation, both levels a little apart; what is undefined is not drawn."""
    for level, shift in (("local", -0.17), ("global", 0.17)):
        points = rows[rows.level == level].drop_duplicates("of").set_index("of").reindex(list(NAMES))
        drawn = points.assign(place=np.arange(len(NAMES)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, (-1.0, 1.0))
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    axes.set_xlim(-0.35, 1.05)
    name_rows(axes, list(NAMES.values()))
    draw_null(axes, 0.0, across=True, label="no agreement")


FIGURE = TableFigure(name="influence", tables=("results",), draw=draw)
