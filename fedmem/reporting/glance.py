"""The first table of a page: a row for each kind of audit example, a column for each measure of the short table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedmem.reporting.cells import Value
from fedmem.reporting.interval_bars import interval_bars
from fedmem.results.run_summary import Finding, Measured, RunSummary


@dataclass(frozen=True, kw_only=True)
class GlanceCell:
    """Bars as SVG that needs no escaping, and lines (none: no value): a level or `retained`, and the value as text."""

    bars: str = ""
    lines: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Glance:
    """The titles of the columns, and for each kind its cells."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[GlanceCell]]]


def glance(brief: RunSummary) -> Glance | None:
    """The findings of a run at both levels, and what aggregation keeps; None where there are no findings."""
    by_kind = {kind.kind: {finding.title: finding for finding in kind.findings} for kind in brief.kinds}
    titles = list(dict.fromkeys(title for findings in by_kind.values() for title in findings))
    if not titles:
        return None
    columns = {title: [findings[title] for findings in by_kind.values() if title in findings] for title in titles}
    spans = {title: _span(findings) for title, findings in columns.items()}
    heads = [f"{title}{', ' * bool(unit)}{unit}" for title in titles for unit in (columns[title][0].unit,)]
    rows = [
        (kind, [_cell(findings[title], spans[title]) if title in findings else GlanceCell() for title in titles])
        for kind, findings in by_kind.items()
    ]
    return Glance(columns=heads, rows=rows)


def _cell(finding: Finding, span: tuple[float, float]) -> GlanceCell:
    measured = {level: value for level in ("local", "global") if (value := _at(finding, level)) is not None}
    lines = [(level, _text(value, finding.digits)) for level, value in measured.items()]
    if finding.retention is not None:
        lines.append(("retained", _text(finding.retention, 2)))
    null = next((value.null for value in measured.values() if not math.isnan(value.null)), math.nan)
    bars = {level: _value(value) for level, value in measured.items()}
    return GlanceCell(bars=interval_bars(bars, span, null), lines=lines)


def _at(finding: Finding, level: str) -> Measured | None:
    return finding.local if level == "local" else finding.aggregate


def _value(measured: Measured) -> Value:
    return Value(value=measured.value, low=measured.low, high=measured.high, n=measured.n, saturated=measured.saturated)


def _text(measured: Measured, digits: int) -> str:
    """The value, its interval, and what it shows where that is not its null excluded."""
    if math.isnan(measured.value):
        return "undefined"
    state = "" if math.isnan(measured.null) or measured.state == "significant" else f", {measured.state}"
    if state == ", below":
        state = ", below its null"
    return f"{_value(measured).text(digits)}{state}"


def _span(findings: Sequence[Finding]) -> tuple[float, float]:
    """The ends of the bars of a column: the smallest and the largest value, end or null in it."""
    numbers = [number for finding in findings for number in _numbers(finding) if math.isfinite(number)]
    return (min(numbers), max(numbers)) if numbers else (0.0, 1.0)


def _numbers(finding: Finding) -> Iterator[float]:
    for measured in (finding.local, finding.aggregate):
        if measured is not None:
            yield from (measured.value, measured.low, measured.high, measured.null)
