"""The figure: what each strategy and each sampler leaves in the aggregate, and what it costs."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from fedmem.estimation.saturation import SaturationZone
from fedmem.reporting.drawing import BLUE, FAINT, ORANGE, png, shade_saturated
from fedmem.studies.experiment import error_bars, new_figure

PANELS = (
    ("exposure", "random_pattern", "exposure of canaries, bits"),
    ("memorisation", "random_pattern", "memorisation of canaries"),
    ("memorisation", "mislabelled", "memorisation of wrong labels"),
    ("auc", "mislabelled", "LiRA AUC on wrong labels"),
    ("test_accuracy", "", "test accuracy"),
)
COLOURS = {"local": BLUE, "global": ORANGE}


def draw(effects: pd.DataFrame) -> bytes:
    """One row of panels for each data set: settings from top to bottom, strategies averaged over samplers and back."""
    names = list(dict.fromkeys(effects["data"]))
    settings = list(dict.fromkeys(effects["setting"]))
    height = (0.24 * len(settings) + 1.2) * len(names)
    figure = new_figure(22, height)
    for name, panels in zip(names, figure.subplots(len(names), len(PANELS), squeeze=False, sharey=True), strict=True):
        of_data = effects[effects["data"] == name]
        for axes, (metric, kind, title) in zip(panels, PANELS, strict=True):
            panel(axes, of_data[(of_data.metric == metric) & (of_data.kind == kind)], settings)
            axes.set_title(f"{name}: {title}", loc="left", fontsize=10)
    title = "blue: models of owning clients (local), orange: aggregate (global); bars: 95 % intervals over seeds; "
    title += "shaded: saturated"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return png(figure)


def panel(axes: Axes, rows: pd.DataFrame, settings: list[str]) -> None:
    """Mean and interval of each setting, both levels; a line through the reference; saturated values are shaded."""
    rows = rows[rows["with"] != "probability"]
    for level, colour in COLOURS.items():
        points = rows[rows.level == level].drop_duplicates("setting").set_index("setting")
        if points.empty:
            continue
        places = [settings.index(setting) for setting in points.index]
        bars = error_bars(points["mean"], points.mean_low, points.mean_high)
        axes.errorbar(points["mean"], places, xerr=bars, fmt="o", ms=4, color=colour, lw=1.2)
        axes.axvline(points["mean"].iloc[0], color=colour, lw=0.7, ls=":", zorder=0)
    shade_saturated(axes, SaturationZone(top=float(rows.saturated_from.min())), x=rows["mean"].tolist())
    axes.set_yticks(range(len(settings)), [setting.strip("{}").removeprefix("kind: ") for setting in settings])
    axes.set_ylim(len(settings) - 0.5, -0.5)
    axes.grid(axis="y", color=FAINT, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
