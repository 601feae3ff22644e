"""The figure: how much is memorised, against what it is worth, and what removing it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.long_tail.analysis import HIGH
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
    possible_range,
)

NAMES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}
KINDS = {
    "typical": "typical",
    "near_duplicate": "near duplicate",
    "corrupted": "corrupted",
    "rare_subgroup": "rare subgroup",
    "mislabelled": "mislabelled",
    "out_of_distribution": "out of distribution",
    "random_pattern": "random pattern",
}
NATURAL = {"shuffled": "natural, coins shuffled", "natural": "natural"}
TITLES = ("memorisation", "long tail", "worth, owning client", "worth, aggregate", "cost of removal")
LEVELS = ("local", "global")
ANY = (-math.inf, math.inf)


def draw(table: pd.DataFrame) -> Figure:
    """A column for each data set. From top to bottom: memorisation, share memorised, worth, and the cost of removal."""
    names = list(dict.fromkeys(table["data"]))
    heights = [1.7, 1.9, 1.5, 1.5, 2.3]
    figure, grid = page_panels(sum(heights) + 3.2, len(heights), len(names), heights=heights, sharey="row")
    for column, name in enumerate(names):
        rows = table[table["data"] == name]
        panels = [line[column] for line in grid]
        memorised = rows[rows.question == "memorisation"]
        with_natural = {"natural": "natural", **KINDS}
        draw_kinds(panels[0], memorised[memorised.measure == "mean"], with_natural, possible_range("memorisation"))
        panels[0].set_xlabel("mean memorisation")
        draw_kinds(panels[1], shares_of(memorised), NATURAL | KINDS, (0.0, 1.0))
        panels[1].set_xlabel(f"share with memorisation ≥ {HIGH}")
        worth = rows[(rows.question == "influence") & (rows.measure == "mean")]
        for axes, level in zip(panels[2:4], LEVELS, strict=True):
            draw_kinds(axes, worth[worth.level == level], KINDS, ANY)
            axes.set_xlabel("right answers per example")
        draw_removal(panels[4], rows[rows.question == "removal"])
        panels[4].set_xlabel("difference of test accuracy, pp")
        title = NAMES.get(name, name)
        for axes, words in zip(panels, TITLES, strict=True):
            name_panel(axes, f"{title}: {words}", 9)
    subtitle = (
        f"{INTERVALS}. Cost of removal: accuracy without the most memorised examples − accuracy without as many others"
    )
    return finish_page(figure, "What is memorised, what it is worth, and what its removal costs", subtitle, grid)


def shares_of(memorised: pd.DataFrame) -> pd.DataFrame:
    """The shares of examples that count as memorised; of natural rows also with their coins shuffled."""
    shares = memorised[memorised.measure == f"share >= {HIGH}"]
    shuffled = memorised[memorised.measure == f"share >= {HIGH} with coins shuffled"]
    return pd.concat([shares, shuffled.assign(what="shuffled")])


def draw_kinds(axes: Axes, rows: pd.DataFrame, kinds: Mapping[str, str], possible: tuple[float, float]) -> None:
    """One row for each kind, both levels of it a little apart."""
    for level in LEVELS:
        points = rows[rows.level == level].set_index("what").reindex(list(kinds))
        if points["mean"].isna().all():
            continue
        bars = interval_bars(points["mean"], points.low, points.high, possible)
        axes.errorbar(points["mean"], places_of(len(kinds), level), xerr=bars, **level_style(level))
    name_rows(axes, list(kinds.values()))
    draw_null(axes, 0.0, across=True, label="no effect")


def draw_removal(axes: Axes, rows: pd.DataFrame) -> None:
    """Accuracy without the most memorised minus accuracy without as many others."""
    gaps = rows[rows.measure.str.startswith("less ")]
    labels = list(dict.fromkeys(zip(gaps["what"], gaps["measure"], strict=True)))
    for level in LEVELS:
        points = gaps[gaps.level == level].set_index(["what", "measure"]).reindex(labels)
        bars = interval_bars(points["mean"], points.low, points.high)
        axes.errorbar(points["mean"], places_of(len(labels), level), xerr=bars, **level_style(level))
    name_rows(axes, [removal_name(*label) for label in labels])
    draw_null(axes, 0.0, across=True, label="no effect")


def places_of(count: int, level: str) -> list[float]:
    """Heights of rows: those of the owning client a little above those of the aggregate."""
    shift = -0.17 if level == "local" else 0.17
    return list(np.arange(count) + shift)


def removal_name(what: str, measure: str) -> str:
    """How a row calls the examples removed, and those removed instead.

    >>> removal_name("10% local", "less same classes as local")
    '10 % by local − same classes'
    """
    size, _, by = what.partition(" ")
    against = "random" if measure == "less random" else "same classes"
    return f"{size.removesuffix('%')} % by {by} − {against}"


FIGURE = TableFigure(name="long_tail", tables=("results",), draw=draw)
