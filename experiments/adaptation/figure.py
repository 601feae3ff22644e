"""The figure: by how much each network lowers each measure at equal accuracy, locally and globally."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.adaptation.gates import ADAPTED, MEASURES
from fedmem.reporting.drawing import name_panel
from fedmem.studies.experiment_figure import (
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    level_style,
    name_rows,
    page_panels,
)

NAMES = ("memorisation", "membership", "reconstruction", "identification")
UNITS = ("probability", "LiRA, area under the curve", "PSNR: in − out, dB", "identified: in − out")


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each measure, a row for each network."""
    figure, grid = page_panels(4.4, 2, 2, sharey=True)
    panels = [axes for line in grid for axes in line]
    for axes, measure, name, unit in zip(panels, MEASURES, NAMES, UNITS, strict=True):
        draw_arms(axes, table[table.family == measure])
        name_panel(axes, name, 9)
        axes.set_xlabel(f"lowered by: {unit}")
        axes.locator_params(axis="x", nbins=5)
    subtitle = "Reference minus network where both have the same accuracy. Bars: 95 % intervals over seeds"
    return finish_page(figure, "Do other networks leak less at equal accuracy?", subtitle, grid)


def draw_arms(axes: Axes, rows: pd.DataFrame) -> None:
    """One row for each network, both levels a little apart."""
    draw_null(axes, 0.0, across=True, label="no difference")
    for level, shift in (("local", -0.15), ("global", 0.15)):
        points = rows[rows.level == level].set_index("arm").reindex(list(ADAPTED))
        drawn = points.assign(at=np.arange(len(ADAPTED)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high)
        axes.errorbar(drawn["mean"], drawn["at"], xerr=bars, **level_style(level))
    name_rows(axes, list(ADAPTED))


FIGURE = TableFigure(name="adaptation", tables=("gates",), draw=draw)
