"""The figure: exposure by copies, by clients that share them, by how was trained, and over rounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments.federated_secrets.analysis import COPIES, OWNERS, PLAIN, THROUGHOUT
from fedmem.estimation.saturation import SaturationZone
from fedmem.reporting.drawing import BLUE, FAINT, GREEN, INK, ORANGE, png, shade_saturated
from fedmem.studies.experiment import error_bars, new_figure

COLOURS = {"local": BLUE, "others": GREEN, "global": ORANGE}
WORDS = {"local": "owner", "others": "other clients", "global": "aggregate"}


def draw(table: pd.DataFrame, curves: pd.DataFrame, null: float, saturated_from: float) -> bytes:
    """A row of five panels for each data set; shaded: exposures that are saturated."""
    names = list(dict.fromkeys(table["data"]))
    figure = new_figure(23, 4.4 * len(names))
    for name, panels in zip(names, figure.subplots(len(names), 5, squeeze=False), strict=True):
        exposures = table[(table["data"] == name) & (table.metric == "exposure")]
        _points(panels[0], exposures[exposures.arm == THROUGHOUT], COPIES, null)
        panels[0].set_title(f"{name}: copies at one client", loc="left", fontsize=10)
        _points(panels[1], exposures[exposures.arm == THROUGHOUT], OWNERS, null)
        panels[1].set_title("clients that share 16 copies", loc="left", fontsize=10)
        for axes, copies in zip(panels[2:4], (8, 16), strict=True):
            _arms(axes, exposures[(exposures.kind == f"x{copies}") & (exposures.arm != THROUGHOUT)], null)
            axes.set_title(f"{copies} copies at one client, last round, by arm", loc="left", fontsize=10)
        _rounds(panels[4], curves[(curves["data"] == name) & (curves.arm == PLAIN)], null)
        panels[4].set_title("aggregate over rounds", loc="left", fontsize=10)
        panels[0].set_ylabel("exposure, bits", fontsize=9)
        for axes, span in zip(panels, ("y", "y", "x", "x", "y"), strict=True):
            shade_saturated(axes, SaturationZone(top=saturated_from), **{span: [saturated_from]})
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    figure.suptitle(
        "bars: 95 % intervals over seeds; dotted: no client trained on it; shaded: saturated",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    return png(figure)


def _points(axes: Axes, exposures: pd.DataFrame, kinds: Mapping[str, int], null: float) -> None:
    """Exposure of these kinds, which stand at their numbers, at each place."""
    for place, colour in COLOURS.items():
        rows = (
            exposures[(exposures.place == place) & exposures.kind.isin(kinds)]
            .set_index("kind")
            .reindex(list(kinds))
            .dropna(how="all")
        )
        if rows.empty:
            continue
        x = [kinds[kind] for kind in rows.index]
        bars = error_bars(rows["mean"], rows.low, rows.high)
        axes.errorbar(x, rows["mean"], bars, color=colour, marker="o", ms=4, lw=1.2)
        axes.annotate(WORDS[place], (x[-1], rows["mean"].iloc[-1]), color=colour, fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(kinds.values()), [str(number) for number in kinds.values()])
    axes.axhline(null, color=FAINT, lw=0.8, ls=":")


def _arms(axes: Axes, exposures: pd.DataFrame, null: float) -> None:
    """Each arm from top to bottom."""
    arms = list(dict.fromkeys(exposures.arm))
    for place in ("local", "global"):
        rows = exposures[exposures.place == place].set_index("arm").reindex(arms)
        bars = error_bars(rows["mean"], rows.low, rows.high)
        axes.errorbar(rows["mean"], np.arange(len(arms)), xerr=bars, fmt="o", ms=4, color=COLOURS[place], lw=1.2)
    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.axvline(null, color=FAINT, lw=0.8, ls=":")


def _rounds(axes: Axes, curves: pd.DataFrame, null: float) -> None:
    """Exposure of the most repeated and of the least, and the loss on the test set, means over seeds."""
    shades = {"x16": ORANGE, "x4": BLUE, "x1": GREEN}
    for kind, colour in shades.items():
        mean = curves[(curves.metric == "exposure") & (curves.kind == kind)].groupby("round").value.mean()
        axes.plot(mean.index, mean.to_numpy(), color=colour, lw=1.4)
        if len(mean):
            axes.annotate(kind, (mean.index[-1], mean.iloc[-1]), color=colour, fontsize=8)
    axes.axhline(null, color=FAINT, lw=0.8, ls=":")
    axes.set_xlabel("round", fontsize=9)
    loss = curves[curves.metric == "test_loss"].groupby("round").value.mean()
    other = axes.twinx()
    other.plot(loss.index, loss.to_numpy(), color=INK, lw=1, ls="--")
    other.set_ylabel("test loss, nats a token (dashed)", fontsize=8)
    other.tick_params(labelsize=8)
    other.spines[["top"]].set_visible(False)
