"""The first screen: what a run shows, in at most 16 lines.

The screen names the scenario and the alarms. It has the values of each kind at the owning client and in the aggregate,
and their retention. Then it has accuracy, reconstruction, privacy, one sentence for each level, and what is not
significant. Values that do not fit are counted. The last lines say where these values and the report are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.contracts.measurement import LabelValue, Level
from fedmem.estimation.saturation import MARK
from fedmem.reporting import screen_notes as notes
from fedmem.reporting.cells import Value, number
from fedmem.reporting.multiplicity import LEVELS
from fedmem.reporting.screen_lines import MORE, Line, Rows, first_of, fit, truncate, width_of, wrap
from fedmem.reporting.table import line_text
from fedmem.reporting.verdict import DETECTABLE, MEMORISED
from fedmem.results.run_summary import Finding, KindSummary, Measured, ModelsSummary, RunSummary

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

LINES = 16
"""The most lines of a first screen."""


@dataclass(frozen=True, kw_only=True)
class FirstScreen:
    """The first screen of a run, to be printed by rich.

    Attributes:
        summary: what the run shows.
        page: the report, as a path that the user can type; None where it could not be written.
    """

    summary: RunSummary
    page: Path | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for text, style in self.lines(options.max_width):
            yield line_text(text, style)

    def lines(self, width: int) -> list[Line]:
        """At most 16 lines of at most this width; only the path of the report is longer where it has to be."""
        head, tail = list(self._head(width)), list(self._tail(width))
        for is_short in (False, True):
            verdicts = [(line, "bold") for verdict in self._verdicts(short=is_short) for line in wrap(verdict, width)]
            rest = LINES - len(head) - len(tail) - len(verdicts) - 1
            rows = self._table(width, max(rest, 0))
            if rows.is_whole:
                break
        lines = [*head, *rows.lines, *verdicts, *tail]
        lines += self._further(width, LINES - len(lines) - 1)
        if len(lines) + 1 > LINES:
            kept = list(self._whole_lines(width))
            first = [line for line in lines if line not in kept]
            lines = [*first[: max(LINES - 2 - len(kept), 0)], *kept, (f"… more: {MORE}", "")]
        return lines if self.page is None else [*lines, (f"Report: {self.page}", "")]

    def _verdicts(self, *, short: bool) -> list[str]:
        return [verdict.short if short else verdict.text for verdict in self.summary.verdicts]

    def _head(self, width: int) -> Iterator[Line]:
        """Lines with the scenario, alarms, failures and warnings."""
        summary = self.summary
        names = [summary.components[part] for part in ("dataset", "strategy") if part in summary.components]
        yield truncate(", ".join([summary.headline.partition(", each ")[0], *names]), width), "bold"
        yield from first_of("ALARM", summary.alarms, "manifest.json", width, "bold red")
        if summary.failures:
            failed = f"FAILED: {summary.failures} of {summary.client_rounds} client rounds; see participation.parquet"
            yield truncate(failed, width), "bold red"
        yield from first_of("WARNING", summary.warnings, MORE, width, "yellow")

    def _tail(self, width: int) -> Iterator[Line]:
        """Reconstruction, privacy, and what is not significant."""
        if text := notes.reconstruction_text(self.summary.leaks):
            yield truncate(text, width), ""
        yield from self._whole_lines(width)
        yield from first_of("Audit", self.summary.audits, MORE, width, "")
        if text := notes.unclear_text(self.summary, width):
            yield truncate(text, width), "dim"

    def _whole_lines(self, width: int) -> Iterator[Line]:
        """Guarantees with their limits, and how many examples are left out: never shortened."""
        yield from ((line, "") for line in wrap(notes.guarantee_text(self.summary), width))
        yield from ((line, "dim") for line in wrap(notes.left_out_text(self.summary.kinds), width))

    def _further(self, width: int, room: int) -> list[Line]:
        """Further lines where there is room, each in the first of its forms that fits."""
        texts = (notes.released_texts(self.summary.kinds), (self.summary.power,))
        lines: list[Line] = []
        for forms in texts:
            wrapped = [[(line, "dim") for line in wrap(form, width)] for form in forms]
            lines += next((some for some in wrapped if len(lines) + len(some) <= room), [])
        return lines

    def _table(self, width: int, limit: int) -> Rows:
        """The values of kinds and models: one line a kind where the width allows it, else one a kind and measure."""
        kinds = [replace(kind, kind=" ".join(kind.kind.split())) for kind in self.summary.kinds if kind.findings]
        wide = _wide_rows(kinds)
        if wide and width_of(wide) <= width:
            significant = [any(_is_notable(finding) for finding in kind.findings) for kind in kinds]
            rows = Rows.of(wide, significant, limit - bool(self.summary.models))
            models = [(truncate(_model_text(value), width), "") for value in self.summary.models[:1]]
            return Rows(lines=(*rows.lines, *models), is_whole=rows.is_whole)
        pairs = [(kind, finding) for kind in kinds for finding in _findings_of(kind)]
        cells = [(kind.kind, _title_with_null(finding), *_narrow_cells(finding)) for kind, finding in pairs]
        has_null = any(title.endswith(")") for _, title, *_ in cells)
        cells += [("all models", *_model_cells(value)[0:3], "") for value in self.summary.models[:1]]
        if not cells:
            return Rows(lines=(), is_whole=True)
        mark = f"{MARK} saturated" if any(MARK in cell for row in cells for cell in row) else ""
        table, gap = fit([(mark, "measure (null)" * has_null, "owning client", "aggregate", "retained"), *cells], width)
        return Rows.of(table, [_is_notable(finding) for _, finding in pairs], limit, gap)


def _is_notable(finding: Finding) -> bool:
    """Whether a value is significant at some level, on either side of its null."""
    values = (finding.local, finding.aggregate)
    return any(value is not None and value.state in ("significant", "below") for value in values)


def _findings_of(kind: KindSummary) -> list[Finding]:
    """The findings that are shown: those of short tables, and others that decide a verdict.

    Right and wrong answers give way to a finer statistic where they are all equal, or show no more than it does.
    """
    shown = [finding for finding in kind.findings if finding.is_headline or _decides(kind, finding)]
    finer = [finding for finding in shown if "statistic" in finding.labels]
    return [
        finding
        for finding in shown
        if "statistic" in finding.labels
        or not any(_variant(finding) == _variant(other) and _shows_no_more(finding, other) for other in finer)
    ]


def _shows_no_more(finding: Finding, other: Finding) -> bool:
    """Whether another finding is significant wherever this one is."""
    return all(_is_significant(other, level) or not _is_significant(finding, level) for level in LEVELS)


def _is_significant(finding: Finding, level: Level) -> bool:
    value = finding.at(level)
    return value is not None and value.state == "significant"


def _decides(kind: KindSummary, finding: Finding) -> bool:
    """Whether a verdict needs a finding at a level: no finding of short tables shows as much there.

    Membership is needed where nothing shows memorisation.
    """
    stronger = (MEMORISED, DETECTABLE) if finding.shows in DETECTABLE else (MEMORISED,)
    others = [one for one in kind.findings for shown in stronger if one.shows in shown]
    return any(
        _is_significant(finding, level)
        and not any(_is_significant(one, level) and (one.is_headline or one.shows != finding.shows) for one in others)
        for level in LEVELS
    )


def _variant(finding: Finding) -> tuple[str, dict[str, LabelValue]]:
    """The subject of a finding, without its statistic."""
    return finding.metric, {name: value for name, value in finding.labels.items() if name != "statistic"}


def _cells(finding: Finding) -> tuple[str, str, str]:
    digits = finding.digits - 1
    retained = finding.retention
    kept = "" if retained is None else "undefined" if math.isnan(retained.value) else value_text(retained, 2)
    return _marked_text(finding.local, digits), _marked_text(finding.aggregate, digits), kept


def _narrow_cells(finding: Finding) -> tuple[str, str, str]:
    """The same in less space: where interval and p disagree, p stands in the place of the retention."""
    digits = finding.digits - 1
    values = (("local", finding.local), ("aggregate", finding.aggregate))
    unclear = [f"{level} p {value.deciding_p:.2g}" for level, value in values if value and value.p_and_interval_differ]
    kept = ", ".join(unclear) or _cells(finding)[2]
    return value_text(finding.local, digits), value_text(finding.aggregate, digits), kept


def _marked_text(value: Measured | None, digits: int) -> str:
    """A value; where interval and p disagree also the p that decides."""
    text = value_text(value, digits)
    return f"{text} p {value.deciding_p:.2g}" if value is not None and value.p_and_interval_differ else text


def _model_cells(value: ModelsSummary) -> tuple[str, str, str]:
    return value.title, value_text(value.local, value.digits - 1), value_text(value.aggregate, value.digits - 1)


def value_text(value: Measured | None, digits: int) -> str:
    """A value with its interval; of few examples, with how many are significant."""
    if value is None:
        return "–"
    if value.examples is not None and not math.isnan(value.value):
        return f"{number(value.value, digits)} ({value.examples} of {value.num_tested} sig.)"
    return Value(value=value.value, low=value.low, high=value.high, n=value.n, saturated=value.saturated).text(digits)


def _wide_rows(kinds: Sequence[KindSummary]) -> list[tuple[str, ...]]:
    """One row a kind: each measure at the owning client and in the aggregate, and what is retained."""
    titles = list(dict.fromkeys(finding.title for kind in kinds for finding in _findings_of(kind)))
    if not titles:
        return []
    nulls = {
        title: [
            value.null
            for kind in kinds
            for finding in _findings_of(kind)
            if finding.title == title
            for value in (finding.local, finding.aggregate)
            if value is not None and not math.isnan(value.null)
        ]
        for title in titles
    }
    heading = (
        "kind",
        "n",
        *(f"{title}{_null_text(nulls[title])}: owning client → aggregate, retained" for title in titles),
    )
    rows = []
    for kind in kinds:
        findings = {finding.title: finding for finding in _findings_of(kind)}
        rows.append((kind.kind, str(notes.num_examples(kind)), *(_wide_cell(findings.get(title)) for title in titles)))
    return [heading, *rows]


def _null(finding: Finding) -> float:
    return next((value.null for value in (finding.aggregate, finding.local) if value is not None), math.nan)


def _null_text(nulls: Sequence[float]) -> str:
    """The value without memorisation, where it is known: a range where it differs between cells."""
    if not nulls:
        return ""
    low, high = f"{min(nulls):.3g}", f"{max(nulls):.3g}"
    return f" (without memorisation {low if low == high else f'{low} to {high}'})"


def _title_with_null(finding: Finding) -> str:
    """The title, in short where it names a statistic, with the value without memorisation where that is not 0."""
    null, statistic = _null(finding), finding.labels.get("statistic")
    title = finding.title if statistic is None else f"{finding.title[:3]}. by {str(statistic)[:4]}."
    return title if math.isnan(null) or abs(null) < 0.005 else f"{title} ({null:.2g})"


def _model_text(value: ModelsSummary) -> str:
    title, local, aggregate = _model_cells(value)
    return f"{title}: owning clients {local}, aggregate {aggregate}"


def _wide_cell(finding: Finding | None) -> str:
    if finding is None:
        return ""
    local, aggregate, kept = _cells(finding)
    return f"{local} → {aggregate}{f', {kept}' if kept else ''}"
