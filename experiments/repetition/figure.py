"""The figure: exposure and counterfactual memorisation by repetition, at the owning client and in the aggregate."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmem.estimators.exposure import null_mean
from fedmem.reporting.drawing import name_panel, shade_saturated
from fedmem.reporting.measures import zone_of_metric
from fedmem.studies.experiment_figure import (
    INTERVALS,
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    level_style,
    page_panels,
    possible_range,
)

PANELS = (
    ("exposure", "secrets", "exposure of secrets", "exposure, bits"),
    ("memorisation", "secrets", "memorisation of secrets", "counterfactual memorisation"),
    ("memorisation", "passages", "memorisation of passages", ""),
)
DASHES = {"local": "-", "global": "--"}


def draw(table: pd.DataFrame) -> Figure:
    """One panel for each measure, over the number of copies; both levels in each, saturated exposures shaded."""
    figure, grid = page_panels(4.2, 1, len(PANELS))
    for axes, (metric, what, title, unit) in zip(grid[0], PANELS, strict=True):
        rows = table[(table.metric == metric) & (table.what == what)]
        draw_measure(axes, rows, metric)
        name_panel(axes, title, 9)
        axes.set_ylabel(unit)
        axes.set_xscale("log", base=2)
        ticks = sorted(set(table.times))
        axes.set_xticks(ticks, [str(times) for times in ticks])
        axes.minorticks_off()
        axes.set_xlabel("copies in the text")
    limits = [axes.get_ylim() for axes in grid[0][1:]]
    for axes in grid[0][1:]:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    subtitle = f"The inclusion coin masks one copy of an example. {INTERVALS}"
    return finish_page(figure, "Exposure rises with repetition, memorisation falls", subtitle, grid, columns=2)


def draw_measure(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    """Means with intervals at both levels, and the value without memorisation."""
    references = int(rows.references.iloc[0]) if metric == "exposure" else 0
    possible = possible_range(metric, references)
    for level, dash in DASHES.items():
        points = rows[rows.level == level].sort_values("times")
        bars = interval_bars(points["mean"], points.low, points.high, possible)
        # a little apart, so that bars of both levels are seen
        places = points.times * (0.97 if level == "local" else 1.03)
        axes.errorbar(places, points["mean"], bars, **level_style(level, linestyle=dash))
    draw_null(axes, null_mean(references) if metric == "exposure" else 0.0, across=False)
    if metric == "exposure":
        axes.set_ylim(bottom=0)
        shade_saturated(axes, zone_of_metric(metric, [references]), y=rows["mean"].tolist())


FIGURE = TableFigure(name="repetition", tables=("results",), draw=draw)
