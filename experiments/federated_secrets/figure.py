"""The figure: exposure by copies, by clients that share them, by arm, and over rounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.federated_secrets.analysis import COPIES, OWNERS, PLAIN, THROUGHOUT
from fedmem.estimators.exposure import null_mean
from fedmem.reporting.drawing import INK, name_panel, shade_saturated
from fedmem.reporting.measures import zone_of_metric
from fedmem.studies.contrasts import mean_of
from fedmem.studies.experiment_figure import (
    INTERVALS,
    LEVEL_NAMES,
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    level_style,
    name_rows,
    page_panels,
    possible_range,
)

DATA = {"shakespeare": "Shakespeare's roles", "sotu": "presidents"}
DASHES = {"local": "-", "others": ":", "global": "--"}
OVER_ROUNDS = {"x16": (0, ()), "x4": (0, (5, 2)), "x1": (0, (1, 1.5))}
"""Label -> dash of its line."""

ARM_COPIES = (8, 16)


def draw(table: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """A column for each data set; saturated exposures are shaded."""
    names = list(dict.fromkeys(table["data"]))
    arms = [arm for arm in dict.fromkeys(table.arm) if arm != THROUGHOUT]
    tall = 0.19 * len(arms) + 0.5
    heights = [1.8, 1.8, tall, tall, 1.8, 1.2]
    figure, grid = page_panels(sum(heights) + 2.6, 6, len(names), heights=heights, sharey="row")
    for column, name in enumerate(names):
        exposures = table[(table["data"] == name) & (table.metric == "exposure")]
        references = int(exposures.references.iloc[0])
        panels = [line[column] for line in grid]
        title = DATA.get(name, name)
        throughout = exposures[exposures.arm == THROUGHOUT]
        draw_counts(panels[0], throughout, COPIES, references)
        panels[0].set_xlabel("copies at one client")
        draw_counts(panels[1], throughout, OWNERS, references)
        panels[1].set_xlabel("clients that share 16 copies")
        for axes in panels[:2]:
            name_panel(axes, title, 9)
        for axes, copies in zip(panels[2:4], ARM_COPIES, strict=True):
            of_arms = exposures[(exposures.kind == f"x{copies}") & (exposures.arm != THROUGHOUT)]
            draw_arms(axes, of_arms, arms, references)
            name_panel(axes, f"{title}: {copies} copies, by arm", 9)
            axes.set_xlabel("exposure, bits")
        of_name = curves[(curves["data"] == name) & (curves.arm == PLAIN)]
        draw_rounds(panels[4], of_name, references)
        name_panel(panels[4], f"{title}: aggregate over rounds", 9)
        draw_loss(panels[5], of_name)
        name_panel(panels[5], f"{title}: test loss", 9)
    for row in (0, 1, 4):
        grid[row][0].set_ylabel("exposure, bits")
    grid[5][0].set_ylabel("nats a token")
    subtitle = f"{INTERVALS}, as are the bands over rounds"
    return finish_page(figure, "Exposure of secrets in federated language models", subtitle, grid, columns=3)


def draw_counts(axes: Axes, exposures: pd.DataFrame, kinds: Mapping[str, int], references: int) -> None:
    """Exposure of these kinds, which stand at their numbers, at each place."""
    for number, place in enumerate(LEVEL_NAMES):
        of_place = exposures[(exposures.place == place) & exposures.kind.isin(kinds)]
        rows = of_place.set_index("kind").reindex(list(kinds)).dropna(how="all")
        bars = interval_bars(rows["mean"], rows.low, rows.high, possible_range("exposure", references))
        places = [kinds[str(kind)] * 1.04 ** (number - 1) for kind in rows.index]
        axes.errorbar(places, rows["mean"], bars, **level_style(place, linestyle=DASHES[place]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(kinds.values()), [str(number) for number in kinds.values()])
    axes.minorticks_off()
    top = zone_of_metric("exposure", [references])
    axes.set_ylim(0, possible_range("exposure", references)[1] + 0.7)
    draw_null(axes, null_mean(references), across=False)
    shade_saturated(axes, top, y=exposures["mean"].tolist())


def draw_arms(axes: Axes, exposures: pd.DataFrame, arms: list[str], references: int) -> None:
    """Each arm from top to bottom."""
    for place in ("local", "global"):
        rows = exposures[exposures.place == place].set_index("arm").reindex(arms)
        bars = interval_bars(rows["mean"], rows.low, rows.high, possible_range("exposure", references))
        axes.errorbar(rows["mean"], range(len(arms)), xerr=bars, **level_style(place))
    name_rows(axes, arms)
    axes.set_xlim(0, possible_range("exposure", references)[1] + 0.7)
    draw_null(axes, null_mean(references), across=True)
    shade_saturated(axes, zone_of_metric("exposure", [references]), x=exposures["mean"].tolist())


def draw_rounds(axes: Axes, curves: pd.DataFrame, references: int) -> None:
    """Exposure in the aggregate of secrets with many, some and one copy; means and intervals over seeds."""
    for kind, dash in OVER_ROUNDS.items():
        values = curves[(curves.metric == "exposure") & (curves.kind == kind)]
        rounds = sorted(set(values["round"]))
        means = [mean_of(values[values["round"] == number].value.to_numpy(dtype=np.float64)) for number in rounds]
        low, high = possible_range("exposure", references)
        lows, highs = (np.clip([getattr(mean, end) for mean in means], low, high) for end in ("low", "high"))
        label = f"aggregate, {COPIES[kind]} cop{'ies' if COPIES[kind] > 1 else 'y'}"
        look = level_style("global", linestyle=dash, markersize=3.5, markevery=3, label=label)
        axes.fill_between(rounds, lows, highs, color=look["color"], alpha=0.15, linewidth=0)
        axes.plot(rounds, [mean.value for mean in means], **look)
    axes.set_ylim(bottom=0)
    draw_null(axes, null_mean(references), across=False)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def draw_loss(axes: Axes, curves: pd.DataFrame) -> None:
    """The loss of the aggregate on the test set, mean over seeds."""
    loss = curves[curves.metric == "test_loss"].groupby("round").value.mean()
    axes.plot(loss.index, loss.to_numpy(), color=INK, linewidth=1.2)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


FIGURE = TableFigure(name="federated_secrets", tables=("results", "rounds"), draw=draw)
