"""The section RECONSTRUCTION of a table."""

from __future__ import annotations

from collections.abc import Mapping

from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Value
from fedmem.reporting.measures import label_titles
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary


def reconstruction_section(
    summary: Summary, source: str, *, others: bool
) -> tuple[list[tuple[str, tuple[tuple[str, ...], ...]]], list[str]]:
    """What one attack reconstructed, over the best prior and over held-out examples, and each view in words."""
    source_labels = Labels.of(source=source if source in summary.leaks[1:] else None)
    sizes = sorted(
        {
            labels.integer("clients")
            for gain in summary.gains
            for _, _, labels, _ in summary.entries(gain, source_labels.plus(view="sum"))
            if "clients" in labels
        }
    )
    views = label_titles().get("view", {})
    places = {Labels.of(view=view): name for view, name in views.items()}
    places |= {Labels.of(view="sum", clients=size): f"the sum of {size} clients" for size in sizes}
    blocks, values_by_metric = [], {}
    for metric, heading in _reconstruction_headings(summary).items():
        values = {
            (kind, place): _reconstruction_value(summary, metric, kind, place, source_labels)
            for kind in summary.kinds
            for place in places
        }
        rows = []
        for kind in summary.kinds:
            message, aggregate, first = (values[kind, Labels.of(view=view)] for view in views)
            blank = ("",) if others else ()
            if message or aggregate:
                cells = (value_cell(message), value_cell(aggregate))
                rows.append((kind, count_cell(message, aggregate), *cells, *blank))
            if first:
                rows.append((f"{kind}, first step", count_cell(first), value_cell(first), "", *blank))
            for size in sizes:
                value = values[kind, Labels.of(view="sum", clients=size)]
                if value:
                    rows.append((f"{kind}, sum of {size}", count_cell(value), "", value_cell(value), *blank))
        if rows:  # images and texts have measures of their own
            blocks.append((heading, tuple(rows)))
        values_by_metric[metric] = values
    notes = []
    for place, name in places.items():
        differences, margins = (
            {
                kind: value
                for metric in summary.gains
                for kind in summary.kinds
                if (value := values_by_metric[metric + of][kind, place])
            }
            for of in (".difference", "")
        )
        if differences or margins:
            notes.append(f"Reconstruction from {name}: {_verdict(differences, margins)}.")
    return blocks, notes


def _reconstruction_headings(summary: Summary) -> dict[str, str]:
    """The metrics of an attack with their headings: its measures, then the same minus those of held-out examples."""
    measures = [measure for measure in summary.known_measures.values() if measure.section == "reconstruction"]
    headings = {
        measure.name: f"reconstruction, {measure.title}{f' ({measure.aside})' if measure.aside else ''}"
        for measure in measures
    }
    differences = {
        f"{measure.name}.difference": f"reconstruction, {measure.difference} (without leakage: 0)"
        for measure in measures
        if measure.difference
    }
    return headings | differences


def _reconstruction_value(
    summary: Summary, metric: str, kind: str, place: Labels, source_labels: Labels
) -> Value | None:
    """A value of one attack about a kind, from one view."""
    for _, about, labels, value in summary.entries(metric, place.plus(**dict(source_labels.items))):
        if about == kind and "coin" not in labels and labels.only(["source"]) == source_labels:
            return value
    return None


def _verdict(differences: Mapping[str, Value], margins: Mapping[str, Value]) -> str:
    """What one view says about each kind, in words: first against held-out examples, then against the best prior."""
    against_held_out = _sort_by_sign(differences, "leaks {}", "further off than held-out examples for {}")
    missing = [kind for kind in margins if kind not in differences]
    if missing:
        against_held_out.append(f"no held-out example to compare with for {', '.join(missing)}")
    against_prior = _sort_by_sign(margins, "better for {}", "worse for {}")
    prior = f" (against the best prior, picked by the truth: {'; '.join(against_prior)})" if against_prior else ""
    return "; ".join(against_held_out) + prior


def _sort_by_sign(values: Mapping[str, Value], above_phrase: str, below_phrase: str) -> list[str]:
    """The kinds whose value is above 0, below 0 and not significantly different from 0, each in a phrase."""
    phrases: dict[str, list[str]] = {above_phrase: [], below_phrase: [], "not significant for {}": []}
    for kind, value in values.items():
        phrase = list(phrases)[(0 if value.low > 0 else 1) if value.is_significant else 2]
        phrases[phrase].append(kind)
    return [phrase.format(", ".join(kinds)) for phrase, kinds in phrases.items() if kinds]
