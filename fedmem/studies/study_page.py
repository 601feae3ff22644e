"""The page of a comparison or sweep: the verdict first, then figures and tables, from its values alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedmem.contracts.events import count
from fedmem.reporting.drawing import without_text_warnings
from fedmem.reporting.rendering import is_empty, page_figure, render
from fedmem.studies import figures
from fedmem.studies.comparison import Comparison, Row
from fedmem.studies.reading_notes import with_few_seeds
from fedmem.studies.report import (
    BEST,
    NO_UTILITY,
    ONE_SEED,
    POWER,
    best_settings,
    estimate_text,
    excluded_note,
    headline,
    is_compared,
    not_significant_note,
    reading_notes,
    saturation_note,
    sections,
    study_warnings,
    trade_section,
)


def verdict(comparison: Comparison) -> list[str]:
    """What the comparison shows: how many differences are significant, and the clearest ones."""
    if not is_compared(comparison):
        return []
    rows = [row for row in comparison.rows if row.contrast is not None]
    if not rows:
        return []
    if len(comparison.seeds) == 1:
        return [f"{ONE_SEED}."]
    clear = [row for row in rows if row.verdict in ("higher", "lower")]
    if not clear:
        return [f"None of {count(len(rows), 'difference')} is significant with {len(comparison.seeds)} seeds."]
    clear.sort(key=lambda row: row.adjusted.p if row.adjusted else 1.0)
    sentences = [
        f"{len(clear)} of {count(len(rows), 'difference')} {'is' if len(clear) == 1 else 'are'} significant with "
        f"{len(comparison.seeds)} seeds, after adjustment for the number of tests."
    ]
    return sentences + [_sentence(comparison, row) for row in clear[:CLEAREST]]


CLEAREST = 3
"""Significant differences that the verdict names, those with the smallest p first."""


def _sentence(comparison: Comparison, row: Row) -> str:
    """A significant difference in words."""
    quantity, reference = row.quantity, comparison.labels[comparison.reference[row.setting]]
    about = ", ".join(filter(None, (quantity.kind, quantity.level)))
    digits = quantity.digits if quantity.scale == 1 else 1
    size = estimate_text(row.adjusted, digits, quantity.scale)
    unit = f" {quantity.unit}" * bool(quantity.unit)
    verdict_text = with_few_seeds(row.verdict, row.contrast.n if row.contrast else 0)
    return (
        f"{quantity.title} ({about}) is {verdict_text} with {comparison.labels[row.setting]} than with {reference}: "
        f"{size}{unit}."
    )


def page(comparison: Comparison, title: str, failures: Sequence[str]) -> tuple[str, Mapping[str, bytes]]:
    """The page, which holds its figures and loads nothing, and these by name as PNG. All text in it is escaped."""
    images: dict[str, bytes] = {}
    shown = []
    with without_text_warnings():
        for name, drawing, caption in figures.draw_all(comparison):
            images[name] = drawing.png()
            shown.append(page_figure(name, drawing, caption))
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
        "warnings": study_warnings(comparison),
        "verdict": verdict(comparison),
        "limits_of_verdict": notes or ([few] if few and not is_compared(comparison) else []),
        "main_figure": shown[0] if shown else None,
        "figures": shown[1:],
        "tables": tables,
        "notes": [] if comparison.trades else [NO_UTILITY],
        "best": list(best_settings(comparison)) if comparison.trades and len(comparison.settings) > 1 else [],
        "best_title": BEST,
        "methods": list(filter(None, (reading_notes(comparison), saturation_note(comparison), POWER if notes else ""))),
        "citation": f"fedmem. {title}. Seeds: {', '.join(map(str, comparison.seeds))}.",
        "footer": f"Files: {folder or name}. This page loads nothing from elsewhere.",
        "versions": "",
    }
    contents = ["Differences" if is_compared(comparison) else "Values"]
    contents += ["More figures"] * bool(values["figures"]) + ["Methods and limits", "How to cite"]
    return render("study.html", contents=contents, **values).decode(), images
