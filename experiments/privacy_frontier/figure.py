"""The figure: accuracy against what was memorised, a panel for each data set and measure, a line for each place."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmem.estimation.saturation import SaturationZone
from fedmem.reporting.drawing import INK, name_panel, shade_saturated
from fedmem.studies.experiment_figure import (
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    page_panels,
    possible_range,
    setting_style,
)

PANELS = (
    ("exposure", "random_pattern", "global", "exposure of canaries\nin the aggregate, bits"),
    ("memorisation", "random_pattern", "global", "memorisation of canaries\nin the aggregate"),
    ("auc", "random_pattern", "global", "LiRA AUC on canaries\nin the aggregate"),
    ("auc", "mislabelled", "global", "LiRA AUC on wrong labels\nin the aggregate"),
    ("auc", "random_pattern", "local", "LiRA AUC on canaries\nat the owning client"),
    ("identified", "random_pattern", "message", "share of canaries\nidentified in messages"),
)
DATA = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}
COLUMNS = 3
PLACES = {"central": "noise on the server's sum", "local": "noise on updates", "record": "noise on gradients"}
SIZES = {0.5: 3.0, 2.0: 4.5, 8.0: 6.0, 32.0: 7.5}
"""Target epsilon -> size of its marker."""


def draw(table: pd.DataFrame) -> Figure:
    """Accuracy upwards, what was memorised to the right: up and left is better; larger points have larger epsilons."""
    names = list(dict.fromkeys(table["data"]))
    rows = len(PANELS) // COLUMNS
    figure, grid = page_panels(2.25 * rows * len(names) + 1.4, rows * len(names), COLUMNS, sharey=True)
    for number, line in enumerate(grid):
        name = names[number // rows]
        of_data = table[table["data"] == name]
        of_row = PANELS[number % rows * COLUMNS :][:COLUMNS]
        for axes, (metric, kind, level, title) in zip(line, of_row, strict=True):
            is_measured = (of_data.metric == metric) & (of_data.kind == kind) & (of_data.level == level)
            draw_measure(axes, of_data[is_measured], of_data[of_data.metric == "accuracy"], metric)
            name_panel(axes, title, 9)
        line[0].set_ylabel(f"test accuracy,\n{DATA.get(name, name)}")
    subtitle = (
        "Up and left is better. Hollow points, small to large: epsilon 0.5, 2, 8, 32; filled: clipping alone. "
        "Bars: 95 % intervals over seeds, cut at the ends of the possible range"
    )
    return finish_page(
        figure,
        "Accuracy against memorisation, by place of the noise",
        subtitle,
        grid,
        columns=3,
        first=list(PLACES.values()),
    )


def draw_measure(axes: Axes, points: pd.DataFrame, accuracy: pd.DataFrame, metric: str) -> None:
    """One measure against accuracy, with intervals over seeds; saturated values are shaded."""
    both = points.merge(accuracy, on=["place", "target"], suffixes=("", "_accuracy"))
    for number, (place, label) in enumerate(PLACES.items(), 1):
        part = both[both.place == place].sort_values("target")
        look = setting_style(number, linewidth=0.9)
        marker = look.pop("marker")
        axes.errorbar(
            part.value,
            part.value_accuracy,
            xerr=interval_bars(part.value, part.low, part.high, possible_range(metric)),
            yerr=interval_bars(
                part.value_accuracy, part.low_accuracy, part.high_accuracy, possible_range("test_accuracy")
            ),
            **look | {"linestyle": "-", "elinewidth": 0.6},
        )
        for target, x, y in part[["target", "value", "value_accuracy"]].to_numpy(dtype=np.float64):
            is_clipping = np.isinf(target)
            size = 6.0 if is_clipping else SIZES.get(target, 5.0)
            face = look["color"] if is_clipping else "white"
            axes.plot(x, y, marker, ms=size, mfc=face, mec=look["color"], mew=1.1, zorder=3)
        axes.plot([], [], marker + "-", color=look["color"], markerfacecolor="white", label=label)
    baseline = both[both.place == "none"]
    axes.plot(
        baseline.value, baseline.value_accuracy, "*", color=INK, ms=9, linestyle="none", label="no privacy", zorder=4
    )
    if points.null.notna().any():
        draw_null(axes, float(points.null.mean()), across=True)
    shade_saturated(axes, SaturationZone(top=float(points.saturated_from.min())), x=points.value.tolist())


FIGURE = TableFigure(name="privacy_frontier", tables=("results",), draw=draw)
