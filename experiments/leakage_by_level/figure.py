"""The figure: the share of victims identified, from the message of one client to the aggregate of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.leakage_by_level.analysis import LEVELS
from fedmem.reporting.drawing import MUTED, name_panel
from fedmem.studies.experiment_figure import (
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    page_panels,
    possible_range,
    setting_style,
)

KINDS = {"random_pattern": "canaries", "mislabelled": "wrong labels", "typical": "typical examples"}
STAGES = {"start": "untrained model", "end": "last round"}
STAGE_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "start": {"linestyle": "-"},
    "end": {"linestyle": ":", "markerfacecolor": "white"},
}
CLIENTS = ("1", "2", "5", "10", "12")
"""How many clients' updates are in what each level shows."""

DATA = {"mnist5k": "MNIST", "fashion_mnist": "Fashion-MNIST"}
MODELS = {"mlp": "MLP", "cnn": "CNN"}
SETTINGS = ((1, 1), (4, 1), (16, 1), (1, 20), (4, 5), (16, 20))
"""Batch size and number of steps."""

COLUMNS = 3


def draw(table: pd.DataFrame) -> Figure:
    """One panel for each data set, model, batch size and number of steps that was attacked."""
    cells = [
        (data, model, batch, steps)
        for model in MODELS
        for data in dict.fromkeys(table["data"])
        for batch, steps in SETTINGS
        if has_rows(table, data, model, batch, steps)
    ]
    lines = -(-len(cells) // COLUMNS)
    figure, grid = page_panels(1.75 * lines + 1.1, lines, COLUMNS, sharex=True, sharey=True)
    panels = [axes for line in grid for axes in line]
    for axes, cell in zip(panels, cells, strict=False):
        draw_cell(axes, select(table, *cell))
        data, model, batch, steps = cell
        name_panel(
            axes, f"{DATA.get(data, data)}, {MODELS[model]}\nbatch of {batch}, {steps} step{'s' * (steps > 1)}", 9
        )
    for axes in panels[len(cells) :]:
        axes.set_visible(False)
    for number, axes in enumerate(panels[: len(cells)]):
        axes.tick_params(labelbottom=number + COLUMNS >= len(cells))
        if number + COLUMNS >= len(cells):
            axes.set_xlabel("clients in the sum")
    for line in grid:
        line[0].set_ylabel("share identified")
    for stage, look in STAGE_LOOKS.items():
        panels[0].plot([], [], color=MUTED, marker="o", markersize=3.5, linewidth=1.1, label=STAGES[stage], **look)
    subtitle = "The sum of 12 clients is the aggregate. Bars: 95 % intervals"
    return finish_page(
        figure,
        "Victims identified in the sum of several clients' updates",
        subtitle,
        grid,
        columns=3,
        first=list(KINDS.values()),
    )


def select(table: pd.DataFrame, data: str, model: str, batch: int, steps: int) -> pd.DataFrame:
    """The rows of one cell."""
    is_of_cell = (table.data == data) & (table.model == model) & (table.batch == batch) & (table.steps == steps)
    return table[is_of_cell]


def has_rows(table: pd.DataFrame, data: str, model: str, batch: int, steps: int) -> bool:
    """Whether a cell was attacked."""
    return not select(table, data, model, batch, steps).empty


def draw_cell(axes: Axes, rows: pd.DataFrame) -> None:
    """The share identified at each level, of each kind and stage; the six stand a little apart."""
    for number, (kind, name) in enumerate(KINDS.items()):
        for stage in STAGES:
            part = rows[(rows.kind == kind) & (rows.stage == stage)].set_index("level").reindex(list(LEVELS))
            bars = interval_bars(
                part.identified, part.identified_low, part.identified_high, possible_range("identified")
            )
            shift = 0.13 * (2 * number + (stage == "end") - 2.5)
            look = setting_style(number, markersize=3.5, elinewidth=0.7, linewidth=1.1, **STAGE_LOOKS[stage])
            if stage == "start":
                look["label"] = name
            axes.errorbar([place + shift for place in range(len(LEVELS))], part.identified, bars, **look)
    axes.set_xticks(range(len(LEVELS)), CLIENTS)
    axes.set_ylim(-0.05, 1.05)
    draw_null(axes, 1 / float(rows.gallery.min()), across=False, label="by chance")


FIGURE = TableFigure(name="leakage_by_level", tables=("results",), draw=draw)
