"""Values of single examples, for kinds with too few examples for an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from fedmem.estimation.two_way import FEWEST
from fedmem.reporting.cells import Section, Value, number
from fedmem.reporting.measures import Variant
from fedmem.reporting.summary import Summary

NOTE = (
    f"Fewer than {FEWEST} examples give no interval for others like them, but something about each: its rank among the "
    "references, over several runs the geometric mean of its ranks; the interval of this example alone, over runs; and "
    "p of no memorisation from random inclusion, which is exact. With one run, p is that of the rank. n counts runs."
)


def single_examples_section(summary: Summary, measures: Sequence[Variant]) -> Section:
    """Each example of the kinds of which fewer than eight were measured, measure by measure, local beside global."""
    numbers: dict[str, list[str]] = {}
    for subject, kind in zip(summary.run.audit["subject"].tolist(), summary.run.audit["kind"].tolist(), strict=True):
        numbers.setdefault(kind, []).append(str(subject))
    blocks = []
    for measure in measures:
        by_kind = [list(_rows(summary, measure, kind, subjects)) for kind, subjects in numbers.items()]
        few = [row for rows in by_kind if len(rows) < FEWEST for row in rows]
        blocks.append((measure.heading, tuple(few)))
    has_rows = any(rows for _, rows in blocks)
    return Section(
        title="SINGLE EXAMPLES",
        columns=("", "n", "local", "global"),
        blocks=tuple(blocks),
        notes=(NOTE,) if has_rows else (),
    )


def _rows(summary: Summary, measure: Variant, kind: str, subjects: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """One row an example: number of runs, and what is known at each level."""
    counts = summary.run.reference_counts.get(kind, frozenset()) if measure.measure.ranked == "value" else frozenset()
    references = min(counts, default=0)
    for subject in subjects:
        values = [
            summary.value(measure.metric, level, subject, labels)
            for level, labels in (("local", measure.labels.plus(place="owner")), ("global", measure.labels))
        ]
        known = [value for value in values if value is not None]
        if known:
            cells = (_cell(value, measure, references) for value in values)
            yield (f"{kind} {subject}", "/".join(dict.fromkeys(str(value.n) for value in known)), *cells)


def _cell(value: Value | None, measure: Variant, references: int) -> str:
    """A value with its rank among so many references (0: it has none), and p."""
    if value is None or math.isnan(value.value):
        return "–"
    if not references:
        return value.text(measure.digits)
    text = f"{number(value.value, measure.digits)}, {rank_text(value, references)}"
    p = 2**-value.value if value.n == 1 and math.isnan(value.p) else value.p
    return text if math.isnan(p) else f"{text}, p {p:.2g}"


def rank_text(value: Value, references: int) -> str:
    """The rank behind an exposure among so many references: exact of one run, of several the geometric mean.

    >>> rank_text(Value(value=8.0, low=math.nan, high=math.nan, n=1), 1023)
    'rank 4 of 1024'
    >>> rank_text(Value(value=8.0, low=math.nan, high=math.nan, n=16), 1023)
    'rank about 4.0 of 1024'
    """
    rank = (references + 1) * 2**-value.value
    return f"rank {rank:.4g} of {references + 1}" if value.n == 1 else f"rank about {rank:.1f} of {references + 1}"
