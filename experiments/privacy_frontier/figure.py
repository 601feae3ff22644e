"""Utility against what was memorised: a panel for each data set and measure, a line for each place of the noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fedmem.estimation.saturation import SaturationZone
from fedmem.reporting.drawing import FAINT, png, shade_saturated
from fedmem.studies.experiment import error_bars, new_figure

PANELS = (
    ("exposure", "random_pattern", "global", "exposure of canaries, bits, aggregate"),
    ("memorisation", "random_pattern", "global", "memorisation of canaries, aggregate"),
    ("auc", "random_pattern", "global", "LiRA AUC on canaries, aggregate"),
    ("auc", "mislabelled", "global", "LiRA AUC on wrong labels, aggregate"),
    ("auc", "random_pattern", "local", "LiRA AUC on canaries, owner's model"),
    ("identified", "random_pattern", "message", "canaries identified in messages"),
)
COLOURS = {"central": "#0072B2", "local": "#D55E00", "record": "#009E73"}


def draw(table: pd.DataFrame) -> bytes:
    """Accuracy upwards, what was memorised to the right: up and left is better; labels are the epsilon aimed at."""
    names = list(dict.fromkeys(table["data"]))
    figure = new_figure(3.4 * len(PANELS), 3.3 * len(names) + 0.6, dpi=100)
    grid = figure.subplots(len(names), len(PANELS), squeeze=False, sharey="row")
    for name, line in zip(names, grid, strict=True):
        of_data = table[table["data"] == name]
        for axes, (metric, kind, level, title) in zip(line, PANELS, strict=True):
            of_measure = of_data[(of_data.metric == metric) & (of_data.kind == kind) & (of_data.level == level)]
            panel(axes, of_measure, of_data[of_data.metric == "accuracy"])
            axes.set_title(title, loc="left", fontsize=9)
        line[0].set_ylabel(f"{name}: test accuracy", fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, fontsize=9, loc="outside lower center", frameon=False)
    return png(figure)


def panel(axes: Axes, points: pd.DataFrame, accuracy: pd.DataFrame) -> None:
    """One measure against accuracy, with intervals over seeds.

    A dotted line stands where nothing is memorised; saturated values are shaded.
    """
    keys = ["place", "target"]
    both = points.merge(accuracy, on=keys, suffixes=("", "_accuracy"))
    for place, colour in COLOURS.items():
        part = both[both.place == place].sort_values("target")
        if part.empty:
            continue
        label = f"{place} (clipping alone: filled)"
        axes.errorbar(
            part.value,
            part.value_accuracy,
            xerr=error_bars(part.value, part.low, part.high),
            yerr=error_bars(part.value_accuracy, part.low_accuracy, part.high_accuracy),
            fmt="o-",
            ms=4,
            mfc="white",
            lw=1,
            color=colour,
            label=label,
        )
        whole = part[np.isinf(part.target)]
        axes.plot(whole.value, whole.value_accuracy, "o", ms=5, color=colour)
        for row in part[~np.isinf(part.target)].itertuples():
            place_of = (row.value, row.value_accuracy)
            axes.annotate(
                f"{row.target:g}", place_of, fontsize=7, color=colour, xytext=(3, 3), textcoords="offset points"
            )
    baseline = both[both.place == "none"]
    axes.plot(baseline.value, baseline.value_accuracy, "k*", ms=9, label="no privacy")
    if points.null.notna().any():
        axes.axvline(float(points.null.mean()), color="#777777", lw=0.8, ls=":")
    shade_saturated(axes, SaturationZone(top=float(points.saturated_from.min())), x=points.value.tolist())
    axes.grid(color=FAINT, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
