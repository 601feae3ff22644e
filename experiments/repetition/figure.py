"""The figure: exposure and counterfactual memorisation by repetition, at the owner and in the aggregate."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from fedmem.estimation.saturation import SaturationZone
from fedmem.reporting.drawing import BLUE, FAINT, GREEN, ORANGE, png, shade_saturated
from fedmem.studies.experiment import error_bars, new_figure

LINES = (
    ("exposure", "secrets", BLUE, "o", "exposure of secrets"),
    ("memorisation", "secrets", ORANGE, "s", "memorisation of secrets"),
    ("memorisation", "passages", GREEN, "^", "memorisation of passages"),
)
TITLES = {"local": "model of the owner", "global": "aggregate"}


def draw(table: pd.DataFrame, null: float, saturated_from: float) -> bytes:
    """A panel for each level; exposure stands on the left axis, memorisation on the right one.

    Exposures that are saturated are shaded.
    """
    figure = new_figure(10.5, 4.2)
    handles = []
    for axes, (level, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        other = axes.twinx()
        for metric, what, colour, marker, label in LINES:
            selection = table[(table.metric == metric) & (table.what == what) & (table.level == level)]
            target: Axes = axes if metric == "exposure" else other
            bars = error_bars(selection["mean"], selection.low, selection.high)
            line = target.errorbar(
                selection.times, selection["mean"], bars, color=colour, marker=marker, ms=5, lw=1.4, label=label
            )
            handles += [line] if level == "local" else []
        axes.set_xscale("log", base=2)
        ticks = sorted(set(table.times))
        axes.set_xticks(ticks, [str(times) for times in ticks])
        axes.set_xlabel("times that it stands in the owner's text; a coin masks one of them", fontsize=8)
        axes.set_ylabel("exposure, bits (dotted: no client trained on it; shaded: saturated)", fontsize=8)
        other.set_ylabel("counterfactual memorisation", fontsize=8)
        axes.axhline(null, color=FAINT, lw=0.8, ls=":")
        axes.set_ylim(bottom=0)
        shade_saturated(axes, SaturationZone(top=saturated_from), y=[saturated_from])
        axes.set_title(title, loc="left", fontsize=10)
        for panel_axes in (axes, other):
            panel_axes.spines[["top"]].set_visible(False)
            panel_axes.tick_params(labelsize=8)
    figure.legend(handles=handles, ncols=3, fontsize=9, loc="outside lower center", frameon=False)
    return png(figure)
