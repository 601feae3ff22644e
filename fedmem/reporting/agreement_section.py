"""The section PROXIES AGAINST MEMORISATION of a table: which quantities rank examples as memorisation does."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Section, Value
from fedmem.reporting.measures import label_title
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary

_METRIC = "agreement"
_SHOWN = 8
"""Proxies of each kind that are shown: those whose ranks agree most, of either sign."""

_PLACES: Mapping[str, Labels] = {"local": Labels.of(place="owner"), "global": Labels()}
_Rows = Mapping[str, Mapping[str, Value]]


def agreement_section(summary: Summary, *, everything: bool) -> Section:
    """Rank correlation of each proxy in runs that trained on an example with its memorisation, at both levels.

    Proxies are in the order of the largest correlation with an interval. With `everything` all are shown.
    """
    blocks = []
    undefined = total = 0
    for kind in (*summary.kinds, "all"):
        rows = _rows_of(summary, kind)
        values = [value for row in rows.values() for value in row.values()]
        total += len(values)
        undefined += sum(math.isnan(value.value) for value in values)
        ordered = sorted(rows, key=lambda name: (-_size(rows[name]), name))
        shown = [name for name in ordered if everything or _size(rows[name]) > 0]
        cells = [
            (name, count_cell(*rows[name].values()), *(value_cell(rows[name].get(level)) for level in _PLACES))
            for name in (shown if everything else shown[:_SHOWN])
        ]
        blocks.append((f"{kind}, ρ with memorisation", tuple(cells)))
    notes = [
        "ρ is over examples, with both quantities from different runs and corrected for their noise. A large ρ over "
        "all kinds is mostly that kinds differ. measurements.parquet has other targets and the differences.",
    ]
    if undefined:
        notes.append(
            f"Of {total} values, {undefined} are undefined: runs are too few to rank these examples reliably. A value "
            "without an interval is no evidence either way."
        )
    return Section(
        title="PROXIES AGAINST MEMORISATION",
        columns=("", "n", "local", "global"),
        blocks=tuple(blocks),
        notes=tuple(notes) if total else (),
    )


def _rows_of(summary: Summary, kind: str) -> _Rows:
    """Proxy -> level -> correlation with memorisation in the runs that trained on the example, given nothing else."""
    wanted = Labels.of(statistic="in", target="memorisation")
    rows: dict[str, dict[str, Value]] = {}
    for level, place in _PLACES.items():
        for at, subject, labels, value in summary.entries(_METRIC, wanted):
            if (at, subject) == (level, kind) and labels.get("place") == place.get("place") and not labels.get("given"):
                rows.setdefault(_title(summary, labels), {})[level] = value
    return rows


def _title(summary: Summary, labels: Labels) -> str:
    """The title of a proxy with its variant, such as `by rounds`."""
    name = labels.text("of")
    measure = summary.known_measures.get(name)
    variant = [option.partition("=") for option in labels.text("options").split()]
    titles = [label_title(key, text) for key, _, text in variant]
    return " ".join([measure.title if measure else name.replace("_", " "), *titles])


def _size(row: Mapping[str, Value]) -> float:
    """The largest correlation of a row that has an interval, 0 without one."""
    sizes = [abs(value.value) for value in row.values() if not math.isnan(value.value + value.low + value.high)]
    return max(sizes, default=0.0)
