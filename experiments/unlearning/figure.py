"""The figure: what each method leaves of what is forgotten, by level, and what it costs in test accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.unlearning.analysis import AFTER, AT_ONCE, FORGOTTEN
from experiments.unlearning.arms import FEDERATIONS
from experiments.unlearning.client import OF_CLIENT
from fedmem.reporting.drawing import name_panel
from fedmem.studies.experiment_figure import (
    INTERVALS,
    LEVEL_NAMES,
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    level_style,
    page_panels,
    setting_style,
)

NAMES = {
    "no_op": "training on",
    "fine_tune": "fine-tuning",
    "gradient_ascent": "gradient ascent",
    "neg_grad_plus": "NegGrad+",
    "pga": "PGA",
    "fed_eraser": "FedEraser",
    "retrain": "retraining",
}


ROWS = {
    "examples": (FORGOTTEN, "wrong labels of digits"),
    "client": (OF_CLIENT[0], "patterns of a whole client"),
    "texts": (FORGOTTEN, "secrets in texts"),
}
"""Federation -> the kind whose memorisation is drawn, and its name."""


def draw(table: pd.DataFrame) -> Figure:
    """A row for each federation: what is left at each level, and test accuracy at once and after the rounds."""
    sizes = [len(FEDERATIONS[name].methods) + 1 for name in ROWS]
    figure, grid = page_panels(8.6, len(ROWS), 2, heights=sizes, sharey="row")
    for (left, right), (federation, (kind, name)) in zip(grid, ROWS.items(), strict=True):
        rows = table[table.federation == federation]
        methods = [method for method in NAMES if method in FEDERATIONS[federation].methods]
        lines = pd.Series(np.arange(len(methods))[::-1], index=methods)
        _draw_left(left, rows[(rows.what == "residual") & (rows.kind == kind) & (rows.when == AFTER)], lines)
        _draw_cost(right, rows[rows.what == "accuracy_change"], lines)
        for axes in (left, right):
            draw_null(axes, 0.0, across=True, label="no difference")
        left.set_yticks(list(lines), [NAMES[method] for method in methods])
        left.set_ylim(-0.6, len(methods) - 0.4)
        name_panel(left, name, 9)
        name_panel(right, f"{name}: cost", 9)
        left.set_xlabel("memorisation after the rounds")
        right.set_xlabel("difference of test accuracy")
    return finish_page(figure, "Unlearning leaves a part of the memory", INTERVALS, grid, columns=3)


def _draw_left(axes: Axes, rows: pd.DataFrame, lines: pd.Series) -> None:
    for number, place in enumerate(LEVEL_NAMES):
        points = rows[rows.place == place]
        bars = interval_bars(points["mean"], points.low, points.high, (-1.0, 1.0))
        axes.errorbar(
            points["mean"], points.method.map(lines).astype(float) + 0.2 * (1 - number), xerr=bars, **level_style(place)
        )


def _draw_cost(axes: Axes, rows: pd.DataFrame, lines: pd.Series) -> None:
    for number, when in enumerate((AT_ONCE, AFTER)):
        # before its rounds, a retrained model is untrained
        points = rows[(rows.when == when) & ((rows.method != "retrain") | (when == AFTER))]
        bars = interval_bars(points["mean"], points.low, points.high, (-1.0, 1.0))
        style = setting_style(number, linestyle="none", label=f"aggregate, {when}")
        axes.errorbar(points["mean"], points.method.map(lines).astype(float) + 0.15 - 0.3 * number, xerr=bars, **style)


FIGURE = TableFigure(name="unlearning", tables=("results",), draw=draw)
