"""The figure: how much is memorised, against what it is worth, and what removing it costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from fedmem.reporting.drawing import BLUE, FAINT, ORANGE, png
from fedmem.studies.experiment import error_bars, new_figure

NAMES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}
COLOURS = {"local": BLUE, "global": ORANGE}
MARKERS = dict(
    zip(
        (
            "typical",
            "near_duplicate",
            "corrupted",
            "rare_subgroup",
            "mislabelled",
            "out_of_distribution",
            "random_pattern",
        ),
        "osDP^vX",
        strict=True,
    )
)


def draw(table: pd.DataFrame, natural: pd.DataFrame, injected: pd.DataFrame) -> bytes:
    """One row of panels for each data set; local is blue, global orange, bars are 95 % intervals over seeds."""
    names = list(dict.fromkeys(table["data"]))
    figure = new_figure(20, 4.6 * len(names))
    for name, panels in zip(names, figure.subplots(len(names), 4, squeeze=False), strict=True):
        rows = table[table["data"] == name]
        boxes(panels[0], natural[natural["data"] == name], injected[injected["data"] == name])
        worth(panels[1], rows, "local")
        worth(panels[2], rows, "global")
        cost(panels[3], rows[rows["question"] == "removal"])
        panels[0].set_title(f"{NAMES[name]}: how much is memorised", loc="left", fontsize=10)
        panels[1].set_title("and worth to the test set, at the owner", loc="left", fontsize=10)
        panels[2].set_title("and worth to the test set, at the aggregate", loc="left", fontsize=10)
        panels[3].set_title("removing the most memorised instead of others", loc="left", fontsize=10)
        for axes in panels:
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    title = "blue: models of the owners (local), orange: aggregate (global); bars: 95 % intervals over seeds"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return png(figure)


def boxes(axes: Axes, natural: pd.DataFrame, injected: pd.DataFrame) -> None:
    """Memorisation of single examples: middle half, 5 to 95 per cent, and all beyond as dots."""
    groups = {
        "natural, coins shuffled": natural.assign(memorisation=natural["memorisation_shuffled"]),
        "natural": natural,
    }
    groups |= {kind: injected[injected["kind"] == kind] for kind in MARKERS}
    for place, part in enumerate(groups.values()):
        for shift, (level, colour) in zip((-0.18, 0.18), COLOURS.items(), strict=True):
            look = {"color": colour, "linewidth": 1.0}
            axes.boxplot(
                part.loc[part["level"] == level, "memorisation"],
                positions=[place + shift],
                orientation="horizontal",
                widths=0.3,
                whis=(5, 95),
                boxprops=look,
                whiskerprops=look,
                capprops=look,
                medianprops=look,
                flierprops={"marker": ".", "markersize": 2, "markeredgecolor": colour, "alpha": 0.5},
            )
    axes.set_yticks(range(len(groups)), [name.replace("_", " ") for name in groups])
    axes.invert_yaxis()
    axes.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")
    axes.set_xlabel("memorisation of an example (probability)", fontsize=9)


def worth(axes: Axes, table: pd.DataFrame, level: str) -> None:
    """Figure 1b of the survey, by kind: memorisation across, cross-influence up."""
    means = table[(table["measure"] == "mean") & (table["level"] == level)]
    across, up = (means[means["question"] == question].set_index("what") for question in ("memorisation", "influence"))
    for kind, marker in MARKERS.items():
        x, y = across.loc[[kind]], up.loc[[kind]]
        axes.errorbar(
            x["mean"],
            y["mean"],
            xerr=error_bars(x["mean"], x.low, x.high),
            yerr=error_bars(y["mean"], y.low, y.high),
            color=COLOURS[level],
            marker=marker,
            markersize=7,
            linewidth=0.8,
            linestyle="none",
            label=kind.replace("_", " "),
        )
    axes.axhline(0, color=FAINT, linewidth=0.8, linestyle=":")
    axes.set_xlabel("memorisation, mean of the kind", fontsize=9)
    axes.set_ylabel("expected right answers that one example adds", fontsize=9)
    axes.legend(fontsize=7.5, frameon=False, ncols=2)


def cost(axes: Axes, table: pd.DataFrame) -> None:
    """Accuracy without the most memorised less accuracy without as many others."""
    gaps = table[table["measure"].str.startswith("less")]
    labels = list(dict.fromkeys(zip(gaps["what"], gaps["measure"], strict=True)))
    for shift, (level, colour) in zip((-0.12, 0.12), COLOURS.items(), strict=True):
        rows = gaps[gaps["level"] == level].set_index(["what", "measure"]).loc[labels]
        places = np.arange(len(labels)) + shift
        axes.errorbar(
            rows["mean"],
            places,
            xerr=error_bars(rows["mean"], rows.low, rows.high),
            fmt="o",
            color=colour,
            markersize=5,
        )
    texts = [f"{what.replace(' ', ' by ', 1)}\n{measure}" for what, measure in labels]
    axes.set_yticks(range(len(labels)), texts)
    axes.invert_yaxis()
    axes.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")
    axes.set_xlabel("difference of test accuracy, points", fontsize=9)
