"""The privacy guarantees of a run, in short: what is guaranteed, for other neighbours too, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fedmem.privacy.spending import PERMITTED
from fedmem.reporting import privacy_sections
from fedmem.reporting.screen_notes import SCHEDULE, epsilon_text
from fedmem.reporting.summary import Summary
from fedmem.results.run_summary import GuaranteeSummary


def guarantees_of(table: Summary) -> Iterator[GuaranteeSummary]:
    """The guarantee of each part after all rounds; nothing where nothing adds noise."""
    run = table.run
    targets = privacy_sections.target_epsilon(run)
    for entry in (run.manifest.get("privacy") or {}).get("mechanisms", ()):
        largest = float(entry.get("largest_epsilon", math.nan))
        is_larger = entry["epsilon"] is not None and largest > entry["epsilon"] * (1 + 1e-9)
        of_schedule = f" {SCHEDULE}" * is_larger
        yield GuaranteeSummary(
            part=entry["part"],
            against=entry["against"],
            unit=entry["unit"],
            adjacency=entry["adjacency"],
            epsilon=math.inf if entry["epsilon"] is None else entry["epsilon"],
            delta=entry["delta"],
            largest_epsilon=largest if is_larger else math.nan,
            other_neighbours=tuple(f"{text}{of_schedule}" for text in _other_neighbours(table, entry)),
            limits=("one run", *filter(None, (str(entry.get("covers", "")).partition("; ")[2],))),
            target=targets[entry["part"]],
        )


def _other_neighbours(table: Summary, entry: Mapping[str, Any]) -> Iterator[str]:
    """The largest epsilon of the same noise, for each other way in which neighbours of kinds differ."""
    largest: dict[str, float] = {}
    for row in table.rows:
        labels = row.reading.labels
        adjacency = labels.text("adjacency")
        if row.reading.metric == PERMITTED and labels.text("part") == entry["part"] and row.scope == "summary":
            largest[adjacency] = max(row.reading.value, largest.get(adjacency, 0.0))
    for adjacency, epsilon in largest.items():
        if adjacency != entry["adjacency"]:
            yield f"{adjacency}: {epsilon_text(epsilon)}"
