"""The section EXTRACTION of a table: shares of secrets that a model writes when it is asked."""

from __future__ import annotations

from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Section, Value
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary

_LEVELS = (("local", "owner"), ("global", None))

_PLACES = ("coin", "place", "contrast", "minus")
"""The labels that say where a share was read. All others say what was asked for, such as the length of a prefix."""


def extraction_section(summary: Summary, *, everything: bool) -> Section:
    """Each headline measure, with `everything` each measure: the share of secrets that were in, and in − out.

    A measure that was read in several ways, such as after prefixes of several lengths, has rows for each way.
    """
    blocks = []
    for measure in summary.known_measures.values():
        if measure.section != "extraction" or not (measure.headline or everything):
            continue
        rows = []
        for kind in summary.kinds:
            for way, words in _ways(summary, measure.name, kind).items():
                title = ", ".join((kind, *words))
                for name, metric in ((title, measure.name), (f"{title}, in − out", f"{measure.name}.difference")):
                    values = [_value(summary, metric, level, kind, place, way) for level, place in _LEVELS]
                    if any(value is not None for value in values):
                        rows.append((name, count_cell(*values), *(value_cell(value) for value in values)))
        blocks.append((f"secrets {measure.title}, share of those in", tuple(rows)))
    return Section(title="EXTRACTION", columns=("", "n", "local", "global"), blocks=tuple(blocks))


def _ways(summary: Summary, metric: str, kind: str) -> dict[Labels, tuple[str, ...]]:
    """The labels of each way in which a measure of a kind was read, and those words that tell it from the others."""
    ways = dict.fromkeys(
        labels.without(*_PLACES) for _, subject, labels, _ in summary.entries(metric) if subject == kind
    )
    shared = set.intersection(*(set(way.items) for way in ways)) if ways else set()
    return {way: Labels(tuple(item for item in way.items if item not in shared)).words() for way in ways}


def _value(summary: Summary, metric: str, level: str, kind: str, place: str | None, way: Labels) -> Value | None:
    """The share of in secrets that models at a level reveal, or its difference from the out secrets."""
    for row_level, about, labels, value in summary.entries(metric, Labels.of(place=place)):
        if (row_level, about, labels.get("coin"), labels.without(*_PLACES)) == (level, kind, None, way):
            return value
    return None
