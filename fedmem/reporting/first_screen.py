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

from fedmem.contracts.measurement import LabelValue
from fedmem.estimation.saturation import MARK
from fedmem.reporting.cells import Value, number
from fedmem.reporting.screen_lines import MORE, Line, Rows, count_text, first_of, fit, truncate, width_of, wrap
from fedmem.reporting.table import line_text
from fedmem.reporting.verdict import list_text
from fedmem.results.run_summary import Finding, KindSummary, Measured, ModelsSummary, Place, RunSummary

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
        if len(lines) + 1 > LINES:
            lines = [*lines[: LINES - 2], (f"… more: {MORE}", "")]
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
        if text := self._reconstruction():
            yield truncate(text, width), ""
        if self.summary.guarantees:
            guarantees = "; ".join(
                f"epsilon {_epsilon(guarantee.epsilon)}{_target_text(guarantee.target)}, delta {guarantee.delta:.2g} "
                f"for a {guarantee.unit} "
                f"({guarantee.part}, {guarantee.adjacency})"
                for guarantee in self.summary.guarantees
            )
            yield truncate(f"Guaranteed: {guarantees}", width), ""
        yield from first_of("Audit", self.summary.audits, MORE, width, "")
        if text := self._unclear(width):
            yield text, "dim"

    def _reconstruction(self) -> str:
        """The kinds that leak from each view that is sent; several attacks are named."""
        leaks = [leak for leak in self.summary.leaks if leak.is_sent]
        several = len({leak.source for leak in leaks}) > 1
        leaking = [
            f"{leak.view}{f' ({leak.source})' * several} leaks {list_text(leak.leaking)}"
            for leak in leaks
            if leak.leaking
        ]
        if leaking:
            return f"Reconstruction: {'; '.join(leaking)}"
        if leaks:
            compared = any(leak.not_significant or leak.closer for leak in leaks)
            return f"Reconstruction: {'not significant' if compared else 'undefined'} from every view that is sent"
        return ""

    def _unclear(self, width: int) -> str:
        """The values that are not significant, below their null, or undefined: named where they fit, else counted."""
        summary = self.summary
        places = {
            "Not significant (may still be there)": summary.not_significant,
            "below null": summary.below,
            "undefined": summary.undefined,
        }
        named = "; ".join(f"{title}: {_places_text(found)}" for title, found in places.items() if found)
        counts = "; ".join(f"{title}: {count_text(len(found))}" for title, found in places.items() if found)
        if not named:
            return ""
        named, counts = (f"{text[0].upper()}{text[1:]}" for text in (named, counts))
        return named if len(named) <= min(width, 100) else truncate(f"{counts} (named with {MORE})", width)

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
        cells = [(kind.kind, finding.title, *_cells(finding)) for kind, finding in pairs]
        cells += [("all models", *_model_cells(value)[0:3], "") for value in self.summary.models[:1]]
        if not cells:
            return Rows(lines=(), is_whole=True)
        mark = f"{MARK} saturated" if any(MARK in cell for row in cells for cell in row) else ""
        table, gap = fit([(mark, "", "owning client", "aggregate", "retained"), *cells], width)
        return Rows.of(table, [_is_notable(finding) for _, finding in pairs], limit, gap)


def _epsilon(value: float) -> str:
    return f"{value:.2g}" if 0 < value < 1 else number(value, 2)


def _target_text(target: float) -> str:
    return "" if math.isnan(target) else f" (target {target:g})"


def _places_text(places: Sequence[Place]) -> str:
    levels = {"local": "local", "global": "global", "retention": "retained"}
    texts = [f"{place.title} of {place.kind}" for place in places]
    by_value = {text: [] for text in texts}  # type: dict[str, list[str]]
    for text, place in zip(texts, places, strict=True):
        by_value[text].append(levels[place.level])
    return ", ".join(f"{text} ({', '.join(names)})" for text, names in by_value.items())


def _is_notable(finding: Finding) -> bool:
    """Whether a value is significant at some level, on either side of its null."""
    values = (finding.local, finding.aggregate)
    return any(value is not None and value.state in ("significant", "below") for value in values)


def _findings_of(kind: KindSummary) -> list[Finding]:
    """The findings of a kind, without those that a finer statistic replaces because all answers are equal."""
    finer = [_variant(finding) for finding in kind.findings if "statistic" in finding.labels]
    return [
        finding
        for finding in kind.findings
        if "statistic" in finding.labels or _variant(finding) not in finer or _is_notable(finding)
    ]


def _variant(finding: Finding) -> tuple[str, dict[str, LabelValue]]:
    """The subject of a finding, without its statistic."""
    return finding.metric, {name: value for name, value in finding.labels.items() if name != "statistic"}


def _cells(finding: Finding) -> tuple[str, str, str]:
    digits = finding.digits - 1
    retained = finding.retention
    kept = "" if retained is None else "undefined" if math.isnan(retained.value) else value_text(retained, 2)
    return value_text(finding.local, digits), value_text(finding.aggregate, digits), kept


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
    nulls = {finding.title: finding for kind in kinds for finding in _findings_of(kind)}
    heading = (
        "kind",
        "n",
        *(f"{title}{_null_text(nulls[title])}: owning client → aggregate, retained" for title in titles),
    )
    rows = []
    for kind in kinds:
        findings = {finding.title: finding for finding in _findings_of(kind)}
        rows.append((kind.kind, str(kind.examples), *(_wide_cell(findings.get(title)) for title in titles)))
    return [heading, *rows]


def _null_text(finding: Finding) -> str:
    """The value without memorisation, where it is known."""
    null = next((value.null for value in (finding.aggregate, finding.local) if value is not None), math.nan)
    return "" if math.isnan(null) else f" (without memorisation {null:.3g})"


def _model_text(value: ModelsSummary) -> str:
    title, local, aggregate = _model_cells(value)
    return f"{title}: owning clients {local}, aggregate {aggregate}"


def _wide_cell(finding: Finding | None) -> str:
    if finding is None:
        return ""
    local, aggregate, kept = _cells(finding)
    return f"{local} → {aggregate}{f', {kept}' if kept else ''}"
