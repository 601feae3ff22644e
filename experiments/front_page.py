"""The first figure of the README: memorisation over rounds in the quickstart.

It is drawn from `docs/memorisation.csv`, the rows of a finished `fedmem run quickstart`:

    python -m experiments.figures --quickstart runs/quickstart/<id>
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import fedmem
from fedmem.reporting.drawing import STYLES, name_panel
from fedmem.studies.experiment_figure import (
    LEVEL_NAMES,
    TableFigure,
    draw_null,
    finish_page,
    page_panels,
    possible_range,
)

FOLDER = Path(__file__).resolve().parents[1] / "docs"
RUNS, CLIENTS = 32, 20
KINDS = {"random_pattern": "random patterns", "mislabelled": "wrong labels", "typical": "typical examples"}
STEP = 5
"""Rounds that are drawn; the quickstart observes the last five one by one as well."""

PLACES = {("local", "owner"): "local", ("local", "others"): "others", ("global", ""): "global"}


def table_of(run_folder: Path) -> pd.DataFrame:
    """Memorisation of each kind, place and observed round of a finished run, with intervals and number of examples."""
    rows = fedmem.read(run_folder).measurements
    rows = rows[(rows.metric == "memorisation") & (rows.statistic == "") & (rows.scope == "round")]
    rows = rows[rows.subject.isin(KINDS)]
    places = [PLACES[key] for key in zip(rows.level, rows.place, strict=True)]
    table = rows.assign(place=places)[["subject", "place", "round", "value", "low", "high", "n"]]
    return table.rename(columns={"subject": "kind"}).sort_values(["kind", "place", "round"])


def draw(table: pd.DataFrame) -> Figure:
    """One panel for each kind of audit example, one line for each place, bands for intervals."""
    table = table[table["round"] % STEP == 0]
    figure, grid = page_panels(3.6, 1, len(KINDS), sharey=True)
    for axes, (kind, title) in zip(grid[0], KINDS.items(), strict=True):
        draw_kind(axes, table[table.kind == kind])
        name_panel(axes, title)
    grid[0][0].set_ylabel("memorisation")
    subtitle = (
        f"{RUNS} federations of {CLIENTS} clients differ in the random inclusion (in/out) of their audit examples. "
        "Memorisation 1: predicted by all models if in, by none if out. Bands: 95 % intervals"
    )
    return finish_page(figure, "Who memorises an example? Its owning client first", subtitle, grid)


def draw_kind(axes: Axes, rows: pd.DataFrame) -> None:
    """Memorisation over rounds at each place."""
    low, high = possible_range("memorisation")
    rows = rows.assign(
        low=rows.low.fillna(rows.value).clip(low, high), high=rows.high.fillna(rows.value).clip(low, high)
    )
    for place, name in LEVEL_NAMES.items():
        points = rows[rows.place == place].sort_values("round")
        look = STYLES[place]
        axes.fill_between(points["round"], points.low, points.high, color=look["color"], alpha=0.17, linewidth=0)
        axes.plot(points["round"], points.value, label=name, linewidth=1.8, markersize=4, **look)
    draw_null(axes, 0.0, across=False)
    axes.set_ylim(min(-0.08, rows.low.min()), high)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


FIGURE = TableFigure(name="memorisation", tables=("memorisation",), draw=draw)
