"""Differences within one setting over seeds: between kinds of audit examples at a level, and between levels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Literal

import numpy as np

from fedmem.contracts.events import count
from fedmem.reporting.cells import Section, Value, number
from fedmem.studies.comparison import Comparison
from fedmem.studies.contrasts import Contrast, bound_interval, contrast, detectable_difference, simultaneous, verdict_of
from fedmem.studies.quantities import Quantity, Series
from fedmem.studies.reading_notes import with_few_seeds

Between = Literal["kinds", "levels"]


@dataclass(frozen=True, kw_only=True)
class WithinDifference:
    """A quantity minus another of the same measure and setting, paired by seeds.

    `between` says whether the two differ in their kind or in their level, and `minus` names the kind or level that is
    subtracted. `contrast` has the 95 % interval and p of this difference alone, `adjusted` those over the `tests`
    differences of its family. `other_rates`: the two were never taken at one false positive rate. `other_examples`:
    local and global are means over different numbers of examples. `detectable` is as in `Row`.
    """

    quantity: Quantity
    setting: int
    between: Between
    minus: str
    contrast: Contrast
    adjusted: Contrast
    tests: int
    detectable: float
    saturated: bool
    other_rates: bool = False
    other_examples: bool = False

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, `not significant`, `identical`, `undefined`, `saturated` or `other rates`."""
        if self.other_rates:
            return "other rates"
        if self.saturated:
            return "saturated"
        return verdict_of(self.contrast, self.adjusted)


def differences_within(comparison: Comparison) -> tuple[WithinDifference, ...]:
    """Every pair of kinds at each level, and local minus global of each kind, of all tested measures and settings.

    All pairs of kinds of a measure, at its levels and in all settings, are one family. So are its differences of
    levels. With measures that were asked for, all of them are together. A setting without runs counts and has no row.
    """
    pairs = list(_pairs(comparison))
    families = Counter((between, comparison.family_of(first.quantity)) for between, first, _ in pairs)
    entries = []
    for between, first, second in pairs:
        tests = families[between, comparison.family_of(first.quantity)] * len(comparison.settings)
        for setting in comparison.settings_with_values:
            same_rate = ~(np.abs(first.fpr[setting] - second.fpr[setting]) > 1e-12)
            values = first.values[setting]
            difference = contrast(np.where(same_rate, values, math.nan), second.values[setting])
            limit = first.quantity.max_difference
            both = ~(np.isnan(values) | np.isnan(second.values[setting]))
            if not both.any():
                continue
            entries.append(
                WithinDifference(
                    quantity=first.quantity,
                    setting=setting,
                    between=between,
                    minus=second.quantity.kind if between == "kinds" else second.quantity.level,
                    contrast=bound_interval(difference, -limit, limit),
                    adjusted=bound_interval(simultaneous(difference, tests), -limit, limit),
                    tests=tests,
                    detectable=detectable_difference(difference.sd, difference.n, tests),
                    saturated=first.is_saturated(setting) and second.is_saturated(setting),
                    other_rates=not same_rate[both].any(),
                    other_examples=between == "levels"
                    and bool((np.abs(first.n[setting] - second.n[setting]) > 0).any()),
                )
            )
    return tuple(entries)


def _pairs(comparison: Comparison) -> Iterator[tuple[Between, Series, Series]]:
    """The pairs to subtract, measure by measure: kinds at each level, then levels of each kind."""
    by_measure: dict[object, list[Series]] = {}
    for series in comparison.tested_series:
        if series.quantity.kind:
            by_measure.setdefault((series.quantity.metric, series.quantity.labels), []).append(series)
    for of_measure in by_measure.values():
        for level in ("local", "global"):
            for first, second in combinations([one for one in of_measure if one.quantity.level == level], 2):
                yield "kinds", first, second
        for first, second in combinations(of_measure, 2):
            if first.quantity.kind == second.quantity.kind:
                yield "levels", first, second


def sections_within(comparison: Comparison) -> Iterator[Section]:
    """The differences of kinds and of levels, measure by measure."""
    titles = {"kinds": "DIFFERENCES OF KINDS", "levels": "LOCAL MINUS GLOBAL"}
    for (title, between), group in groupby(
        differences_within(comparison), key=lambda entry: (entry.quantity.title, entry.between)
    ):
        entries = list(group)
        unit = entries[0].quantity.unit
        blocks = [
            (heading, tuple(_cells(comparison, entry) for entry in rows))
            for heading, rows in groupby(entries, key=lambda entry: _heading(entry))
        ]
        notes = (
            "Local and global are means over different numbers of examples: an example is read locally where its "
            "owning client took part. So a difference may be that of the examples.",
        ) * any(entry.other_examples for entry in entries)
        yield Section(
            title=f"{title.upper()}: {titles[between]}",
            columns=("", "seeds", f"difference{unit and ', '}{unit}", f"p, {count(entries[0].tests, 'test')}", ""),
            blocks=tuple(blocks),
            notes=notes,
        )


def _heading(entry: WithinDifference) -> str:
    return entry.quantity.level if entry.between == "kinds" else ""


def _cells(comparison: Comparison, entry: WithinDifference) -> tuple[str, ...]:
    quantity, estimate = entry.quantity, entry.adjusted
    name = f"{quantity.kind} − {entry.minus}" if entry.between == "kinds" else quantity.kind
    if len(comparison.settings) > 1:
        name = f"{name}, {comparison.labels[entry.setting]}"
    digits = quantity.digits if quantity.scale == 1 else 1
    ends = [end * quantity.scale for end in (estimate.value, estimate.low, estimate.high)]
    text = Value(value=ends[0], low=ends[1], high=ends[2], n=estimate.n).text(digits)
    p = "" if math.isnan(estimate.p) else "< 0.001" if estimate.p < 0.001 else f"{estimate.p:.3f}"
    verdict = entry.verdict
    if verdict == "saturated":
        verdict = "both saturated: no difference can be seen"
    if verdict == "not significant" and not math.isnan(entry.detectable):
        is_possible = entry.detectable <= quantity.max_difference
        size = number(entry.detectable * quantity.scale, digits) if is_possible else "more than possible"
        verdict += f" (detects {size})"
    return name, str(estimate.n), text, p, with_few_seeds(verdict, estimate.n)
