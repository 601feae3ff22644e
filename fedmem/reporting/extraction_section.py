"""The section EXTRACTION of a table: shares of secrets that a model writes when it is asked."""

from __future__ import annotations

from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Section, Value
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary

_LEVELS = (("local", "owner"), ("global", None))


def extraction_section(summary: Summary, *, everything: bool) -> Section:
    """Each headline measure, with `everything` each measure: the share of secrets that were in, and in − out."""
    blocks = []
    for measure in summary.known_measures.values():
        if measure.section != "extraction" or not (measure.headline or everything):
            continue
        rows = []
        for kind in summary.kinds:
            for name, metric in ((kind, measure.name), (f"{kind}, in − out", f"{measure.name}.difference")):
                values = [_value(summary, metric, level, kind, place) for level, place in _LEVELS]
                if any(value is not None for value in values):
                    rows.append((name, count_cell(*values), *(value_cell(value) for value in values)))
        blocks.append((f"secrets {measure.title}, share of those in", tuple(rows)))
    return Section(title="EXTRACTION", columns=("", "n", "local", "global"), blocks=tuple(blocks))


def _value(summary: Summary, metric: str, level: str, kind: str, place: str | None) -> Value | None:
    """The share of in secrets that models at a level reveal, or its difference from the out secrets."""
    for row_level, about, labels, value in summary.entries(metric, Labels.of(place=place)):
        if (row_level, about, labels.get("coin")) == (level, kind, None):
            return value
    return None
