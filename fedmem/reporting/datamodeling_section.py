"""The section INFLUENCE AGAINST RUNS of a table: which influences predict how runs differ by what they trained on."""

from __future__ import annotations

from collections.abc import Mapping

from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Section, Value
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary

_METRIC = "lds"

_TARGETS = ("audit", "audit without itself", "test")

_PLACES: Mapping[str, Labels] = {"local": Labels.of(place="owner"), "global": Labels()}

_BASELINE = "in − out over runs (datamodel)"


def datamodeling_section(summary: Summary) -> Section:
    """The linear datamodeling score of each signal at both levels, by the kind of targets; last the largest possible.

    The section is empty where the score was not measured.
    """
    blocks = []
    for targets in _TARGETS:
        rows: dict[str, dict[str, Value]] = {}
        for metric in (_METRIC, f"{_METRIC}.ceiling"):
            for level, place in _PLACES.items():
                for at, _, labels, value in summary.entries(metric, Labels.of(targets=targets)):
                    if at == level and labels.get("place") == place.get("place"):
                        rows.setdefault(_title(summary, labels.text("of")), {})[level] = value
        cells = [
            (name, count_cell(*row.values()), *(value_cell(row.get(level)) for level in _PLACES))
            for name, row in rows.items()
        ]
        blocks.append((f"{targets}, ρ with margins over runs", tuple(cells)))
    notes = [
        "ρ is over runs: of a target's margin with the summed influence of the examples that the run trained on. n "
        "counts targets. Influences are from other runs than those that they are compared with.",
    ]
    return Section(
        title="INFLUENCE AGAINST RUNS",
        columns=("", "n", "local", "global"),
        blocks=tuple(blocks),
        notes=tuple(notes) if any(rows for _, rows in blocks) else (),
    )


def _title(summary: Summary, name: str) -> str:
    """The title of a signal without its target, of the baseline, or of the largest possible score."""
    if name in ("", "datamodel"):
        return _BASELINE if name else "largest possible, by twins"
    measure = summary.known_measures.get(name)
    return measure.title.removesuffix(" on itself") if measure else name.replace("_", " ")
