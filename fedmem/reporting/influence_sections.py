"""The sections CROSS-INFLUENCE and CLIENT INFLUENCE of a table."""

from __future__ import annotations

from fedmem.contracts.events import count
from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Section, Value, number, p_text
from fedmem.reporting.measures import label_titles
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary


def cross_influence_section(summary: Summary, *, everything: bool) -> Section:
    """Which test examples gain or lose by audit examples: sums, what noise alone gives, and pairs that stand out."""
    blocks = []
    for statistic in (None, "probability") if everything else (None,):
        unit = "test examples, by probability of the label" if statistic else "test examples"
        headings = {
            "cross_influence": f"gained by training on one example, {unit} (without influence: 0)",
            "cross_help": f"helped by one example, {unit}",
            "cross_harm": f"harmed by one example, {unit}",
        }
        for metric, heading in headings.items():
            rows = []
            for kind in summary.kinds:
                places = _both_levels(kind, statistic)
                values = [summary.value(metric, *place) for place in places]
                nulls = [summary.value(f"{metric}.null", *place) for place in places]
                p_values = [summary.value(f"{metric}_p", *place) for place in places]
                if any(values):
                    rows.append((kind, count_cell(*values), *(value_cell(value) for value in values)))
                if any(nulls) and any(p_values):
                    cells = (_noise(*pair) for pair in zip(nulls, p_values, strict=True))
                    rows.append((f"{kind}, by noise", count_cell(*values), *cells))
            blocks.append((heading, tuple(rows)))
        rows = []
        for kind in summary.kinds:
            places = _both_levels(kind, statistic)
            help_counts, harm_counts = (
                [summary.value(f"cross_pairs_{side}", *place) for place in places] for side in ("helped", "harmed")
            )
            if any(help_counts):
                cells = (
                    f"{up.value:,.0f} / {down.value:,.0f}" if up and down else "–"
                    for up, down in zip(help_counts, harm_counts, strict=True)
                )
                rows.append((kind, count_cell(*help_counts), *cells))
        blocks.append(
            (f"significant pairs, helped / harmed; n counts pairs{', by probability' * bool(statistic)}", tuple(rows))
        )
    return Section(title="CROSS-INFLUENCE", columns=("", "n", "local", "global"), blocks=tuple(blocks))


def _both_levels(kind: str, statistic: str | None) -> tuple[tuple[str, str, Labels], ...]:
    """Level, kind and labels at the owning client and at the aggregate."""
    labels = Labels.of(statistic=statistic)
    return ("local", kind, labels.plus(place="owner")), ("global", kind, labels)


def _noise(null: Value | None, p_value: Value | None) -> str:
    """The value expected from noise alone, and the probability that noise is as far out as the value."""
    return f"{number(null.value, 2)}, p {p_text(p_value.value, 1 / (p_value.n + 1))}" if null and p_value else "–"


def client_influence_section(summary: Summary, *, everything: bool) -> Section:
    """The influence of whole clients on the aggregate: mean, lowest, highest, and how many are significant."""
    rows: list[tuple[str, ...]] = []
    notes = []
    for statistic, name in label_titles().get("statistic", {}).items():
        statistic_labels = Labels.of(statistic=statistic)
        values = {
            subject: value
            for _, subject, labels, value in summary.entries("client_influence", statistic_labels)
            if labels == statistic_labels
        }
        mean = values.pop("", None)
        if mean is None:
            continue
        rows.append((f"{name}, mean", str(mean.n), mean.text(3)))
        ordered = sorted(values, key=lambda subject: (values[subject].value, subject))
        subjects = ordered if everything else ordered[:1] + ordered[-1:] if statistic == "accuracy" else []
        rows += [
            (f"{name}, {summary.subject_text(subject)}", str(values[subject].n), values[subject].text(3))
            for subject in dict.fromkeys(subjects)
        ]
        if everything:
            rows += [
                (f"{name}, {about_class}, mean", str(value.n), value.text(3))
                for _, subject, labels, value in summary.entries("client_influence", statistic_labels)
                if not subject and (about_class := summary.class_text(labels))
            ]
        up, down = (
            sum(v.is_significant and (v.low > 0) == is_above for v in values.values()) for is_above in (True, False)
        )
        notes.append(
            f"{name}: significantly above 0 for {up} and below 0 for {down} of {count(len(values), 'client')}."
        )
    heading = "runs with the client minus runs without it; n: runs; in rows called mean: clients"
    notes = notes if everything else notes[:1]
    if notes and not everything:
        notes.append("The lowest and the highest are picked by their values: their intervals do not say so.")
    title = "CLIENT INFLUENCE"
    return Section(title=title, columns=("", "n", "global"), blocks=((heading, tuple(rows)),), notes=tuple(notes))
