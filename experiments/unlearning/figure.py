"""The figure: what each method leaves of the forgotten examples, by level, and what it costs in test accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.unlearning.analysis import AFTER, AT_ONCE, FORGOTTEN
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


def draw(table: pd.DataFrame) -> Figure:
    """One panel for what is left at each level, and one for test accuracy at once and after the rounds."""
    figure, grid = page_panels(4.2, 1, 2, sharey=True)
    left, right = grid[0]
    lines = pd.Series(np.arange(len(NAMES))[::-1], index=list(NAMES))
    for number, place in enumerate(LEVEL_NAMES):
        is_left = (table.what == "residual") & (table.kind == FORGOTTEN) & (table.when == AFTER)
        points = table[is_left & (table.place == place)]
        bars = interval_bars(points["mean"], points.low, points.high, (-1.0, 1.0))
        left.errorbar(points["mean"], points.method.map(lines) + 0.2 * (1 - number), xerr=bars, **level_style(place))
    for number, when in enumerate((AT_ONCE, AFTER)):
        # before its rounds, a retrained model is untrained
        is_trained = (table.method != "retrain") | (table.when == AFTER)
        points = table[(table.what == "accuracy_change") & (table.when == when) & is_trained]
        bars = interval_bars(points["mean"], points.low, points.high, (-1.0, 1.0))
        style = setting_style(number, linestyle="none", label=f"aggregate, {when}")
        right.errorbar(points["mean"], points.method.map(lines) + 0.15 - 0.3 * number, xerr=bars, **style)
    for axes in grid[0]:
        draw_null(axes, 0.0, across=True, label="no difference")
    left.set_yticks(list(lines), list(NAMES.values()))
    name_panel(left, "what is left of wrong labels", 9)
    name_panel(right, "cost", 9)
    left.set_xlabel("memorisation after the rounds")
    right.set_xlabel("difference of test accuracy")
    return finish_page(
        figure, "Unlearning leaves a part of the memory", f"Wrong labels of one client. {INTERVALS}", grid, columns=3
    )


FIGURE = TableFigure(name="unlearning", tables=("results",), draw=draw)
