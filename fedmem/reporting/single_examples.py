"""Values of single examples, for kinds with too few examples for an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.audit_set import PEOPLE
from fedmem.contracts.measurement import Level
from fedmem.estimation.saturation import HALF_A_BIT
from fedmem.estimation.single_examples import smallest_p
from fedmem.estimation.two_way import FEWEST
from fedmem.reporting.cells import Section, Value, number, p_text
from fedmem.reporting.measures import Variant, measure_of
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary


def note(is_in: BoolArray) -> str:
    """The contents of the table, and the smallest p that its runs allow."""
    floor = smallest_p(is_in)
    p = (
        "p of no memorisation, which is exact and one-sided. With one run it is that of the rank, and "
        "secrets that people wrote have none."
        if math.isnan(floor)
        else "p of no memorisation of this example, which is exact and one-sided. It is the share of all ways to "
        f"choose its in runs that have as high a sum of ranks. With {len(is_in)} runs it is at least {floor:.2g}. It "
        "is not adjusted for the number of examples, and `fedmem top` adjusts it. In other sections, p is two-sided "
        "and about all examples of a kind together."
    )
    return (
        f"Fewer than {FEWEST} examples give no interval for others like them. Each example has its rank among the "
        "references (over several runs, the geometric mean of its ranks). It has an interval of this example alone, "
        f"over runs, and {p} The column n counts runs."
    )


def single_examples_section(summary: Summary, measures: Sequence[Variant]) -> Section:
    """Each example of kinds with fewer than eight measured, measure by measure, with local and global values."""
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
        notes=(note(np.array(summary.run.audit["is_in"].tolist()).T[: summary.num_coin_rows]),) if has_rows else (),
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
            levels: tuple[Level, ...] = ("local", "global")
            p_of_ranks = [partial(_p_of_rank, summary, level, subject) for level in levels]
            cells = (_cell(value, measure, references, p) for value, p in zip(values, p_of_ranks, strict=True))
            yield (f"{kind} {subject}", "/".join(dict.fromkeys(str(value.n) for value in known)), *cells)


def _p_of_rank(summary: Summary, level: Level, subject: str) -> float:
    return float(summary.p_of_ranks[level][int(subject)])


def _cell(value: Value | None, measure: Variant, references: int, p_of_rank: Callable[[], float]) -> str:
    """A value with its rank among so many references (0: it has none), and p."""
    if value is None or math.isnan(value.value):
        return "–"
    if not references:
        return value.text(measure.digits)
    text = f"{number(value.value, measure.digits)}, {rank_text(value, references)}"
    has_rank_alone = value.n == 1 and math.isnan(value.p)
    p = p_of_rank() if has_rank_alone else value.p
    saturated = value.value >= math.log2(references + 1) - HALF_A_BIT and not has_rank_alone
    return text if math.isnan(p) else f"{text}, p {p_text(p, math.nan, saturated=saturated)}"


def rank_text(value: Value, references: int) -> str:
    """The rank behind an exposure among so many references: exact of one run, of several the geometric mean.

    >>> rank_text(Value(value=8.0, low=math.nan, high=math.nan, n=1), 1023)
    'rank 4 of 1024'
    >>> rank_text(Value(value=8.0, low=math.nan, high=math.nan, n=16), 1023)
    'rank about 4.0 of 1024'
    """
    rank = (references + 1) * 2**-value.value
    return f"rank {rank:.4g} of {references + 1}" if value.n == 1 else f"rank about {rank:.1f} of {references + 1}"


def has_null(summary: Summary, measure: Variant, kind: str) -> bool:
    """Whether the value without memorisation is known for a kind, at some level."""
    places = [("local", measure.labels.plus(place="owner")), ("global", measure.labels)]
    return any(summary.value(f"{measure.metric}.null", level, kind, labels) for level, labels in places)


def row_of_gain(summary: Summary, measure: Variant, kind: str, *, others: bool) -> Iterator[tuple[str, ...]]:
    """The gain that a measure declares, for a kind whose value without memorisation nobody knows."""
    gain = measure.measure.gain
    if not gain or has_null(summary, measure, kind):
        return
    places = [("local", "owner"), ("global", None), ("local", "others")][: 3 if others else 2]
    values = [summary.value(gain, level, kind, measure.labels.plus(place=place)) for level, place in places]
    if any(values):
        title = measure_of(gain, summary.known_measures).title
        yield (f"{kind}, {title}", count_cell(*values), *(value_cell(value, measure) for value in values))


def notes_without_null(summary: Summary, measures: Sequence[Variant]) -> Iterator[str]:
    """Sentences on the exposure of kinds whose null is unknown."""
    for measure in measures:
        if measure.measure.ranked == "value":
            levels = [(measure.labels.plus(place="owner"), "local"), (measure.labels, "global")]
            for kind in summary.kinds:
                is_measured = any(summary.value(measure.metric, level, kind, labels) for labels, level in levels)
                if is_measured and not has_null(summary, measure, kind):
                    gain = (
                        measure_of(measure.measure.gain, summary.known_measures).title if measure.measure.gain else ""
                    )
                    row = f". Read the row {kind}, {gain}" if gain else ""
                    yield f"{kind} has no value without memorisation: {PEOPLE}{row}."
