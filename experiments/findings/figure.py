"""The figure: the effect of each claim with its interval, relative to zero, at owning clients and in the aggregate."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmem.reporting.drawing import name_panel
from fedmem.studies.experiment_figure import LEVEL_NAMES, TableFigure, draw_null, finish_page, name_rows, page_panels
from fedmem.studies.findings import FAILS, HOLDS, OPEN

LOOKS: dict[str, dict[str, Any]] = {
    HOLDS: {"marker": "o", "color": "#2f7d4f"},
    OPEN: {"marker": "o", "markerfacecolor": "white", "color": "0.5"},
    FAILS: {"marker": "X", "color": "#a3342a"},
}


def draw(table: pd.DataFrame) -> Figure:
    """A row for each claim, a panel for each level; marks of the same row are different data sets or models."""
    claims = table.drop_duplicates(["point", "title"])[["point", "title"]]
    figure, grid = page_panels(0.29 * len(claims) + 1.3, 1, 2, sharey=True)
    for axes, level in zip(grid[0], ("local", "global"), strict=True):
        of_level = table[table.level == level]
        for row, (point, title) in enumerate(claims.itertuples(index=False)):
            draw_claim(axes, of_level[(of_level.point == point) & (of_level.title == title)], row)
        name_rows(axes, [f"{point} {title}" for point, title in claims.itertuples(index=False)])
        draw_null(axes, 0.0, across=True, label="no effect")
        axes.set_xlim(-1.1, 1.1)
        axes.set_xticks([-1, 0, 1], ["does not hold", "0", "holds"])
        name_panel(axes, LEVEL_NAMES[level], 9)
    for name, look in LOOKS.items():
        grid[0][0].plot([], [], linestyle="none", markersize=5, label=name, **look)
    subtitle = (
        "Effects with their 95 % intervals, each divided by the far end of its interval. Verdicts are adjusted (Holm)."
    )
    return finish_page(figure, "Do the key points of the survey hold in a federation?", subtitle, grid)


def draw_claim(axes: Axes, answers: pd.DataFrame, row: int) -> None:
    """The answers of one claim, a little apart; what is undefined is not drawn."""
    for number in range(len(answers)):
        answer = answers.iloc[number]
        mean, low, high = (float(answer[name]) for name in ("mean", "low", "high"))
        far = max(abs(low), abs(high))
        if math.isnan(far) or answer.verdict not in LOOKS:
            continue
        height = row + 0.22 * (number - (len(answers) - 1) / 2)
        reach = [[(mean - low) / far], [(high - mean) / far]]
        axes.errorbar([mean / far], [height], xerr=reach, linestyle="none", markersize=4, **LOOKS[answer.verdict])


FIGURE = TableFigure(name="findings", tables=("findings",), draw=draw)
