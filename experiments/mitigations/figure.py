"""The figure: by how much each mitigation lowers each measure at equal accuracy, locally and globally."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.mitigations.analysis import MEMORY, SERIES, WORST
from experiments.mitigations.claims import ARM_ORDER, REFERENCE
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

DATA = {"digits": "digits", "fashion_mnist": "Fashion"}
PANELS = {MEMORY: "memorisation", WORST: "most vulnerable", SERIES: "membership"}


def draw(gates: pd.DataFrame) -> Figure:
    """A row for each data set of the table, a column for each measure."""
    shown = {data: name for data, name in DATA.items() if data in set(gates.data)}
    figure, grid = page_panels(1.0 + 3.7 * len(shown), len(shown), len(PANELS), sharey=True, sharex="col")
    named = gates[gates.claim.str.count("more than at random") == 0]
    for line, (data, name) in zip(grid, shown.items(), strict=True):
        for axes, (measure, words) in zip(line, PANELS.items(), strict=True):
            draw_arms(axes, named[(named.data == data) & (named.measure == measure)])
            name_panel(axes, f"{name}: {words}", 9)
    for axes in grid[-1]:
        axes.set_xlabel("lowered by")
    subtitle = (
        "Without mitigation minus with it, where both have .97 of the final accuracy. Bars: 95 % intervals over seeds. "
        "Rows without points have no answer"
    )
    return finish_page(figure, "Do mitigations lower memorisation at equal accuracy?", subtitle, grid)


def draw_arms(axes: Axes, rows: pd.DataFrame) -> None:
    """One row for each mitigation, both levels a little apart."""
    draw_null(axes, 0.0, across=True, label=f"as with {REFERENCE}")
    for level, shift in (("local", -0.15), ("global", 0.15)):
        points = rows[rows.level == level].set_index("arm").reindex(list(ARM_ORDER))
        drawn = points.assign(at=np.arange(len(ARM_ORDER)) + shift).dropna(subset="mean")
        bars = interval_bars(drawn["mean"], drawn.low, drawn.high)
        axes.errorbar(drawn["mean"], drawn["at"], xerr=bars, **level_style(level))
    name_rows(axes, list(ARM_ORDER))


FIGURE = TableFigure(name="mitigations", tables=("gates",), draw=draw)
