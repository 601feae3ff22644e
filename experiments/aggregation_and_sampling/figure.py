"""The figure: what each strategy and each sampler leaves in the aggregate, and what it costs."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmem.estimation.saturation import HALF_A_BIT, SaturationZone
from fedmem.estimators.exposure import null_mean
from fedmem.reporting.drawing import STYLES, name_panel, shade_saturated
from fedmem.reporting.measures import shipped_measures
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
)

PANELS = (
    ("exposure", "random_pattern", "exposure of\ncanaries, bits", (0, 4, 8)),
    ("memorisation", "random_pattern", "memorisation\nof canaries", (0, 0.5, 1)),
    ("memorisation", "mislabelled", "memorisation of\nwrong labels", (0, 0.1)),
    ("auc", "mislabelled", "LiRA AUC on\nwrong labels", (0.5, 0.75, 1)),
    ("test_accuracy", "", "test\naccuracy", (0.4, 0.6, 0.8)),
)
"""Measure, kind, title, and the numbers of the axis."""


def draw(effects: pd.DataFrame) -> Figure:
    """One row of panels for each data set: strategies averaged over samplers, then samplers over strategies."""
    names = list(dict.fromkeys(effects["data"]))
    settings = effects[["factor", "setting"]].drop_duplicates().reset_index(drop=True)
    height = (max(0.19 * len(settings), 1.4) + 0.75) * len(names) + 1.1
    figure, grid = page_panels(height, len(names), len(PANELS), sharey=True, sharex="col")
    for name, panels in zip(names, grid, strict=True):
        of_data = effects[effects["data"] == name]
        for axes, (metric, kind, title, ticks) in zip(panels, PANELS, strict=True):
            is_of_panel = (of_data.metric == metric) & (of_data.kind.fillna("") == kind)
            draw_settings(axes, of_data[is_of_panel], settings, metric)
            name_panel(axes, title, 8.5)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.tick_params(labelbottom=True)
        name_rows(panels[0], [row_name(*pair) for pair in settings.to_numpy().tolist()])
        panels[0].set_ylabel(name, fontweight="bold")
    subtitle = f"{INTERVALS}; dashed: the reference, which is FedAvg for strategies and uniform for samplers"
    return finish_page(figure, "What strategies and samplers change", subtitle, grid, columns=2)


def row_name(factor: str, setting: str) -> str:
    """A setting as the name of a row; all samplers draw the same number of clients.

    >>> row_name("sampler", "{kind: min_separation, size: 8, separation: 2}")
    'sampler min_separation: 2'
    >>> row_name("strategy", "{kind: fedadam, server_lr: 0.01}")
    'fedadam, lr: 0.01'
    """
    words = setting.strip("{}").removeprefix("kind: ").replace("weighting: uniform", "uniform weights")
    if factor == "sampler":
        return f"sampler {words.replace(', size: 8', '').replace(', separation', '')}"
    return words.replace("server_lr", "lr")


def draw_settings(axes: Axes, rows: pd.DataFrame, settings: pd.DataFrame, metric: str) -> None:
    """Mean and interval of each setting, both levels; lines through the references; saturated values are shaded."""
    rows = rows[rows["with"] != "probability"]
    if rows.empty:
        return
    for level in ("local", "global"):
        points = rows[rows.level == level].drop_duplicates(["factor", "setting"])
        if points.empty:
            continue
        points = settings.merge(points, how="left", on=["factor", "setting"])
        bars = interval_bars(points["mean"], points.mean_low, points.mean_high, possible_range(metric))
        axes.errorbar(points["mean"], points.index, xerr=bars, **level_style(level, markersize=3.5))
        for _, group in points.groupby("factor"):
            ends = [group.index[0] - 0.4, group.index[-1] + 0.4]
            color = STYLES[level]["color"]
            axes.plot([group["mean"].iloc[0]] * 2, ends, color=color, linewidth=0.8, linestyle="--", zorder=1)
    top = float(rows.saturated_from.min())
    null = null_mean(round(2 ** (top + HALF_A_BIT)) - 1) if metric == "exposure" else shipped_measures()[metric].null
    if not math.isnan(null):
        draw_null(axes, null, across=True)
    shade_saturated(axes, SaturationZone(top=top), x=rows["mean"].tolist())


FIGURE = TableFigure(name="effects", tables=("effects",), draw=draw)
