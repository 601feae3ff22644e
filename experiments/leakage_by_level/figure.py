"""Identification and margin from the client to the aggregate."""

from __future__ import annotations

import pandas as pd

from experiments.leakage_by_level.analysis import LEVELS
from fedmem.reporting.drawing import png
from fedmem.studies.experiment import new_figure

COLOURS = {"random_pattern": "#D55E00", "mislabelled": "#0072B2", "typical": "#009E73"}
NAMES = {"random_pattern": "canary", "mislabelled": "mislabelled", "typical": "typical"}
COLUMNS = ((1, 1), (4, 1), (16, 1), (1, 20), (4, 5), (16, 20))


def draw(table: pd.DataFrame) -> bytes:
    """Share identified at each level; a row for each data set and model, a column for batch and steps."""
    rows = list(table[["data", "model"]].drop_duplicates().itertuples(index=False, name=None))
    figure = new_figure(2.3 * len(COLUMNS), 2.1 * len(rows) + 0.9, layout=None)
    grid = figure.subplots(len(rows), len(COLUMNS), sharex=True, sharey=True, squeeze=False)
    for line, (data, model) in zip(grid, rows, strict=True):
        for axes, (batch, steps) in zip(line, COLUMNS, strict=True):
            selection = table[
                (table.data == data) & (table.model == model) & (table.batch == batch) & (table.steps == steps)
            ]
            axes.set_title(f"batch {batch}, {steps} step{'s' * (steps > 1)}", fontsize=8)
            for kind, colour in COLOURS.items():
                for stage, style in (("start", "-"), ("end", ":")):
                    part = (
                        selection[(selection.kind == kind) & (selection.stage == stage)]
                        .set_index("level")
                        .reindex(list(LEVELS))
                    )
                    label = f"{NAMES[kind]}, {'untrained' if stage == 'start' else 'last round'}"
                    axes.plot(range(len(LEVELS)), part.identified, style, color=colour, label=label, marker=".")
                    if stage == "start":
                        axes.fill_between(
                            range(len(LEVELS)),
                            part.identified_low,
                            part.identified_high,
                            color=colour,
                            alpha=0.12,
                            lw=0,
                        )
            if selection.empty:
                axes.text(2, 0.5, "not attacked", ha="center", fontsize=7, color="#777777")
            axes.set_xticks(range(len(LEVELS)), ["1", "2", "5", "10", "12"])
            axes.tick_params(labelsize=7)
            axes.set_ylim(-0.03, 1.03)
        line[0].set_ylabel(f"{data}\n{model}", fontsize=8)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=6, fontsize=7, loc="lower center", frameon=False)
    figure.suptitle(
        "Share of victims identified in the update of so many clients (bands: 95 % intervals)", fontsize=10, y=0.995
    )
    figure.tight_layout(rect=(0, 0.04, 1, 0.99))
    return png(figure)
