"""The figure: agreement of proxies with memorisation, with and without the example, at both levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.proxies.analysis import LAST
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

NAMES = {"digits": "digits", "fashion_mnist": "Fashion", "texts": "texts"}
PROXIES = {
    "loss": "loss",
    "cumulative_loss": "cumulative loss",
    "confidence_spread": "spread of confidence",
    "forgetting": "forgetting",
    "final_learning": "final learning",
    "el2n": "EL2N",
    "grad_norm": "gradient norm",
    "entropy": "entropy",
    "loss_sensitivity": "loss sensitivity",
    "curvature_exact": "curvature",
    "gradient_variance": "variance of gradients",
    "noise_robustness": "robustness to noise",
    "adversarial_distance": "adversarial distance",
    "update_alignment": "alignment of updates",
    "noise": "noise (control)",
}
VARIANTS = {"in": "trained on", "out": "not trained on", "gain": "difference"}
LEVELS = ("local", "global")


def draw(table: pd.DataFrame) -> Figure:
    """A column for each data set, a row for models with the example, without it, and for the difference."""
    rows = table[(table.question == "agreement") & (table["round"] == LAST)]
    data = [name for name in NAMES if name in set(rows["data"])]
    figure, grid = page_panels(10.5, len(VARIANTS), len(data), sharey="row", sharex=True)
    for line, (variant, words) in zip(grid, VARIANTS.items(), strict=True):
        for axes, name in zip(line, data, strict=True):
            draw_proxies(axes, rows[(rows.statistic == variant) & (rows["data"] == name)])
            name_panel(axes, f"{NAMES[name]}: {words}", 9)
    for axes in grid[-1]:
        axes.set_xlabel("rank correlation")
    what = "Ordinary examples; correlation with memorisation from other runs, corrected for noise, where defined"
    subtitle = f"{what}. {INTERVALS}"
    return finish_page(figure, "Which proxies rank examples as memorisation does?", subtitle, grid)


def draw_proxies(axes: Axes, rows: pd.DataFrame) -> None:
    """One row for each proxy; both levels of it a little apart. Undefined correlations are not drawn."""
    for level in LEVELS:
        of_level = rows[rows.level == level]
        # trajectories have two clocks in the aggregate, of which the figure shows rounds
        names = of_level.proxy.str.partition(" ")
        is_other = (names[2] == "clock=participations") & (level == "global")
        points = of_level[~is_other].assign(name=names[0]).set_index("name").reindex(list(PROXIES))
        shift = -0.17 if level == "local" else 0.17
        drawn = points.assign(place=np.arange(len(PROXIES)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high, (-1.0, 1.0))
        axes.errorbar(drawn["mean"], drawn.place, xerr=bars, **level_style(level))
    axes.set_xlim(-1.08, 1.08)
    name_rows(axes, list(PROXIES.values()))
    draw_null(axes, 0.0, across=True, label="no agreement")


FIGURE = TableFigure(name="proxies", tables=("results",), draw=draw)
