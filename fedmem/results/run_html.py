"""A run as HTML for a notebook: its verdict, values and report. Whatever comes from files is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator

from fedmem.results.run_summary import Measured, RunSummary

_LIMIT = 30
"""Rows that are shown; further ones are counted."""


def run_html(summary: RunSummary, folder: str) -> str:
    """The summary of a run as HTML, without scripts, styles of its own, or anything that is loaded."""
    return "".join(_parts(summary, folder))


def _parts(summary: RunSummary, folder: str) -> Iterator[str]:
    text = html.escape
    yield f"<div><p><b>{text(summary.headline)}</b></p>"
    for alarm in summary.alarms:
        yield f"<p><b>ALARM: {text(alarm)}</b></p>"
    if summary.failures:
        yield f"<p><b>{summary.failures} of {summary.client_rounds} client rounds failed.</b></p>"
    for warning in summary.warnings:
        yield f"<p>WARNING: {text(warning)}</p>"
    for verdict in summary.verdicts:
        yield f"<p>{text(verdict.text)}</p>"
    rows = [(kind.kind, finding) for kind in summary.kinds for finding in kind.findings]
    if rows:
        yield "<table><thead><tr><th>kind</th><th>measure</th><th>owning client</th><th>aggregate</th>"
        yield "<th>retained</th></tr></thead><tbody>"
        for kind, finding in rows[:_LIMIT]:
            values = (finding.local, finding.aggregate, finding.retention)
            cells = (kind, finding.title, *(value_text(value, finding.digits) for value in values))
            yield f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in cells)}</tr>"
        yield "</tbody></table>"
    if len(rows) > _LIMIT:
        yield f"<p>{len(rows) - _LIMIT} more rows: <code>run.table()</code>.</p>"
    for models in summary.models[:1]:
        sides = (("owning clients", models.local), ("aggregate", models.aggregate))
        values_text = ", ".join(f"{name} {value_text(value, models.digits)}" for name, value in sides if value)
        yield f"<p>{text(models.title)}: {text(values_text)}</p>"
    yield f"<p>Report: <code>{text(folder)}/{text(summary.report)}</code></p></div>"


def value_text(value: Measured | None, digits: int) -> str:
    """A value with its interval and what it shows; empty where nothing was measured.

    >>> value_text(Measured(value=0.01, low=-0.1, high=0.1, n=9, null=0.0, keys=()), 2)
    '0.01 [-0.10, 0.10] not significant'
    """
    if value is None:
        return ""
    if math.isnan(value.value):
        return "undefined"
    ends = "no interval" if math.isnan(value.low + value.high) else f"{value.low:.{digits}f}, {value.high:.{digits}f}"
    state = "" if value.state == "significant" or math.isnan(value.null) else f" {value.state}"
    return f"{value.value:.{digits}f} [{ends}]{'†' * value.saturated}{state}"
