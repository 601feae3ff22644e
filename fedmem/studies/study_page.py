"""The page of a comparison or sweep: the verdict first, then figures and tables, from its values alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedmem.contracts.events import count
from fedmem.reporting.drawing import without_text_warnings
from fedmem.reporting.rendering import PageFigure, is_empty, page_figure, render
from fedmem.studies import figures
from fedmem.studies.comparison import Comparison, Retention, Row
from fedmem.studies.reading_notes import with_few_seeds
from fedmem.studies.report import (
    NO_UTILITY,
    ONE_SEED,
    POWER,
    best_settings,
    estimate_text,
    excluded_note,
    front_title,
    headline,
    is_compared,
    not_significant_note,
    reading_notes,
    saturation_note,
    sections,
    study_warnings,
    trade_section,
)
from fedmem.studies.study_summary import sentence_texts


def verdict(comparison: Comparison) -> list[str]:
    """The verdict of the comparison: how many differences are significant, and the clearest ones."""
    if not is_compared(comparison):
        return sentence_texts(comparison)[:CLEAREST] if len(comparison.settings) == 1 else []
    rows = [row for row in comparison.rows if row.contrast is not None]
    retention = [entry for entry in comparison.retention if entry.difference is not None]
    total = count(len(rows) + len(retention), "difference")
    if not rows:
        return []
    if len(comparison.seeds) == 1:
        return [f"{ONE_SEED}."]
    clear = [
        (row.adjusted.p if row.adjusted else 1.0, _sentence(comparison, row)) for row in rows if row.verdict in _CLEAR
    ]
    clear += [
        (entry.difference.p if entry.difference else 1.0, _retention_sentence(comparison, entry))
        for entry in retention
        if entry.verdict in _CLEAR
    ]
    if not clear:
        return [f"None of {total} is significant with {len(comparison.seeds)} seeds."]
    clear.sort(key=lambda pair: pair[0])
    first = (
        f"{len(clear)} of {total} {'is' if len(clear) == 1 else 'are'} significant with {len(comparison.seeds)} seeds, "
        "after adjustment for the number of tests."
    )
    return [first, *(sentence for _, sentence in clear[:CLEAREST])]


_CLEAR = ("higher", "lower")

CLEAREST = 3
"""Significant differences that the verdict names, those with the smallest p first."""


def _sentence(comparison: Comparison, row: Row) -> str:
    """A significant difference in words."""
    quantity = row.quantity
    about = ", ".join(filter(None, (quantity.kind, quantity.level)))
    size = estimate_text(row.adjusted, quantity.digits if quantity.scale == 1 else 1, quantity.scale)
    unit = f" {quantity.unit}" * bool(quantity.unit)
    verdict_text = with_few_seeds(row.verdict, row.contrast.n if row.contrast else 0)
    return _difference_sentence(comparison, row.setting, f"{quantity.title} ({about})", verdict_text, f"{size}{unit}")


def _retention_sentence(comparison: Comparison, entry: Retention) -> str:
    """A significant difference of what aggregation retains, in words."""
    about = f"retention of {entry.quantity.title} ({entry.quantity.kind})"
    verdict_text = with_few_seeds(entry.verdict, entry.difference.n if entry.difference else 0)
    return _difference_sentence(comparison, entry.setting, about, verdict_text, estimate_text(entry.difference, 2))


def _difference_sentence(comparison: Comparison, setting: int, about: str, verdict_text: str, size: str) -> str:
    labels = comparison.labels
    reference = labels[comparison.reference[setting]]
    return f"{about[:1].upper()}{about[1:]} is {verdict_text} with {labels[setting]} than with {reference}: {size}."


def _main_figure(comparison: Comparison, shown: Sequence[PageFigure]) -> PageFigure | None:
    """The figure that answers the question: the first one of a measure of audit examples, else the first."""
    names = [
        figures.slug(" ".join([*series.quantity.parts, series.quantity.metric]))
        for series in comparison.tested_series
        if series.quantity.kind
    ]
    of_examples = [figure for name in names for figure in shown if figure.name in (f"{name}_levels", f"{name}_rounds")]
    return next(iter([*of_examples, *shown]), None)


def page(comparison: Comparison, title: str, failures: Sequence[str]) -> tuple[str, Mapping[str, bytes]]:
    """The page, which holds its figures and loads nothing, and these by name as PNG. All text in it is escaped."""
    images: dict[str, bytes] = {}
    shown = []
    with without_text_warnings():
        for name, drawing, caption in figures.draw_all(comparison):
            images[name] = drawing.png()
            shown.append(page_figure(name, drawing, caption))
    main = _main_figure(comparison, shown)
    name, _, folder = title.partition(" · ")
    tables = [section for section in (*sections(comparison), trade_section(comparison)) if not is_empty(section)]
    notes = [not_significant_note(comparison)] if not_significant_note(comparison) else []
    lines, _, few = headline(comparison).partition(". ")
    values: dict[str, Any] = {
        "title": name,
        "place": folder,
        "eyebrow": "fedmem report",
        "headline": f"{lines}.",
        "alarms": [
            *(f"failed and left out: {cause}" for cause in failures),
            *filter(None, [excluded_note(comparison)]),
        ],
        "warnings": [f"WARNING: {text}" for text in study_warnings(comparison)],
        "verdict": verdict(comparison),
        "limits_of_verdict": notes or ([few] if few and not is_compared(comparison) else []),
        "main_figure": main,
        "figures": [figure for figure in shown if figure is not main],
        "tables": tables,
        "notes": [] if comparison.trades else [NO_UTILITY],
        "best": list(best_settings(comparison)) if comparison.trades and len(comparison.settings) > 1 else [],
        "best_title": front_title(comparison),
        "methods": list(filter(None, (reading_notes(comparison), saturation_note(comparison), POWER if notes else ""))),
        "citation": f"fedmem. {title}. Seeds: {', '.join(map(str, comparison.seeds))}.",
        "footer": f"Files: {folder or name}. This page loads nothing from elsewhere.",
        "versions": "",
    }
    contents = ["Differences" if is_compared(comparison) else "Values"]
    contents += ["More figures"] * bool(values["figures"]) + ["Methods and limits", "How to cite"]
    return render("study.html", contents=contents, **values).decode(), images
