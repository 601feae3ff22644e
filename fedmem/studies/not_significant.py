"""How many differences of a comparison are not significant, and the smallest that its seeds could find."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

from fedmem.reporting.cells import number
from fedmem.studies.comparison import Comparison, Retention, Row


@dataclass(frozen=True, kw_only=True)
class _Tested:
    """A difference that was tested, of a value or of a retention, as effects in its unit."""

    title: str
    verdict: str
    detectable: float
    is_possible: bool
    unit: str
    digits: int

    @classmethod
    def of_row(cls, row: Row) -> _Tested:
        quantity = row.quantity
        return cls(
            title=quantity.title,
            verdict=row.verdict,
            detectable=row.detectable * quantity.scale,
            is_possible=row.detectable <= quantity.max_difference,
            unit=quantity.unit,
            digits=2 if quantity.unit == "bits" else 1,
        )

    @classmethod
    def of_retention(cls, entry: Retention) -> _Tested:
        return cls(
            title=f"retention of {entry.quantity.title}",
            verdict=entry.verdict,
            detectable=entry.detectable,
            is_possible=True,
            unit="",
            digits=2,
        )


def not_significant_note(comparison: Comparison) -> str:
    """How many differences are not significant, measure by measure with the smallest that the seeds could find.

    Differences of retention count, as every difference that has a verdict does.
    """
    tested = [_Tested.of_row(row) for row in comparison.rows if row.contrast is not None]
    tested += [_Tested.of_retention(entry) for entry in comparison.retention if entry.contrast is not None]
    weak = [one for one in tested if one.verdict == "not significant"]
    if not weak or len(comparison.seeds) == 1:
        return ""  # one seed is reported once, above all tables
    texts = []
    for title, group in groupby(weak, key=lambda one: one.title):
        of_measure = list(group)
        detectable = [one for one in of_measure if not math.isnan(one.detectable)]
        sizes = [one.detectable for one in detectable if one.is_possible]
        none = (
            f"; {len(detectable) - len(sizes)} more than possible, more seeds"
            if sizes
            else "more than possible; more seeds"
        )
        unit, digits = of_measure[0].unit, of_measure[0].digits
        if sizes:
            ends = dict.fromkeys(number(end, digits) for end in (min(sizes), max(sizes)))
            beyond = none if len(sizes) < len(detectable) else ""
            texts.append(f"{title} {len(of_measure)} (detects {' to '.join(ends)}{unit and ' '}{unit}{beyond})")
        elif detectable:
            texts.append(f"{title} {len(of_measure)} (detects {none})")
        else:
            texts.append(f"{title} {len(of_measure)}")
    seeds = len(comparison.seeds)
    verb = "is" if len(weak) == 1 else "are"
    return f"{len(weak)} of {len(tested)} differences {verb} not significant with {seeds} seeds: {'; '.join(texts)}."
