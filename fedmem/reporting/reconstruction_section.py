"""The section RECONSTRUCTION of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Value
from fedmem.reporting.measures import label_titles
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary
from fedmem.results.run_summary import Key, Leak


class _Place(NamedTuple):
    """Evidence of an attack: a view by its labels, and the level where one view is attacked at several, else None."""

    labels: Labels
    level: str | None = None


_Values = Mapping[tuple[str, _Place], Value | None]
"""The values of one metric by kind and place."""


def reconstruction_section(
    summary: Summary, source: str, *, others: bool
) -> tuple[list[tuple[str, tuple[tuple[str, ...], ...]]], list[str]]:
    """The reconstructions of one attack against the baseline guess and held-out examples, and each view in words."""
    sizes = _sizes(summary, source)
    places = _places(summary, source)
    blocks, values_by_metric = [], {}
    for metric, heading in _reconstruction_headings(summary).items():
        values = {
            (kind, place): _reconstruction_value(summary, source, metric, kind, place)
            for kind in summary.kinds
            for place in places
        }
        rows = []
        for kind in summary.kinds:
            blank = ("",) if others else ()
            for title, at_client, at_aggregate in _lines(kind, sizes):
                one, other = (
                    None if place is None else values.get((kind, place)) for place in (at_client, at_aggregate)
                )
                if one or other:
                    rows.append(
                        (title, count_cell(one, other), _cell(at_client, one), _cell(at_aggregate, other), *blank)
                    )
        if rows:  # images and texts have measures of their own
            blocks.append((heading, tuple(rows)))
        values_by_metric[metric] = values
    notes = []
    for place, name in places.items():
        differences, margins = _comparisons(summary, values_by_metric, place)
        if differences or margins:
            identified = _identified_kinds(values_by_metric, summary.kinds, place)
            shares = {kind: value for kind in summary.kinds if (value := _share_of(values_by_metric, kind, place))}
            by_share = _identified_differences(values_by_metric, summary.kinds, place)
            notes.append(
                f"Reconstruction from {name}: {_verdict(differences, margins, identified, shares)}."
                f"{_adjusted_text(differences, margins, by_share)}"
            )
    return blocks, notes


def leaks(summary: Summary) -> Iterator[Leak]:
    """The reconstructions of each attack from each view, by the same rule as the sentences of the section."""
    for source in summary.leaks:
        for place, view in _places(summary, source).items():
            rows = {
                (metric, kind): row
                for metric in _reconstruction_headings(summary)
                for kind in summary.kinds
                if (row := _reconstruction_row(summary, source, metric, kind, place))
            }
            values_by_metric: dict[str, dict[tuple[str, _Place], Value | None]] = {
                metric: {(kind, place): None for kind in summary.kinds} for metric in _reconstruction_headings(summary)
            }
            for (metric, kind), (_, _, value) in rows.items():
                values_by_metric[metric][kind, place] = value
            differences, margins = _comparisons(summary, values_by_metric, place)
            if not (differences or margins):
                continue
            identified = _identified_kinds(values_by_metric, summary.kinds, place)
            leaking, closer = _leaking_and_closer(_widen(differences), _widen(margins), identified)
            yield Leak(
                source=source,
                view=view,
                is_sent=place.labels.get("view") != UNSENT,
                leaking=tuple(leaking),
                closer=tuple(closer),
                not_significant=tuple(kind for kind in differences if kind not in (*leaking, *closer)),
                uncompared=tuple(kind for kind in margins if kind not in differences),
                keys=tuple(
                    Key(
                        metric=metric,
                        level=level,
                        subject=kind,
                        source=source,
                        labels=dict(labels.without("source").items),
                    )
                    for (metric, kind), (level, labels, _) in rows.items()
                    if kind in differences or kind in margins
                ),
            )


UNSENT = "first_step"
"""The view of what no server sees."""

WEIGHTS_ALONE = "model"
"""The view of the weights after a round, without an update. It has the same name at both levels."""


def _sizes(summary: Summary, source: str) -> list[int]:
    """Of how many clients the attack saw sums, ascending."""
    return sorted(
        {
            labels.integer("clients")
            for gain in summary.gains
            for _, _, labels, _ in summary.entries(gain, _source_labels(summary, source).plus(view="sum"))
            if "clients" in labels
        }
    )


_OWNED = {"local": "of a client", "global": "of the aggregate"}
"""Levels at which one view is attacked, after the name of the view."""


def _places(summary: Summary, source: str) -> dict[_Place, str]:
    """The evidence that an attack saw, with its name; the weights alone at each level."""
    places: dict[_Place, str] = {}
    for view, name in label_titles().get("view", {}).items():
        if view == WEIGHTS_ALONE:
            places |= {_Place(Labels.of(view=view), level): f"{name}, {owned}" for level, owned in _OWNED.items()}
        else:
            places[_Place(Labels.of(view=view))] = name
    sums = {_sum_of(size): f"the sum of {size} clients" for size in _sizes(summary, source)}
    return places | sums


def _sum_of(size: int) -> _Place:
    return _Place(Labels.of(view="sum", clients=size))


def _lines(kind: str, sizes: Collection[int]) -> Iterator[tuple[str, _Place | None, _Place | None]]:
    """The title of each line about a kind, with what the attack saw at the client and at the aggregate."""
    yield kind, _Place(Labels.of(view="message")), _Place(Labels.of(view="aggregate"))
    yield f"{kind}, first step", _Place(Labels.of(view=UNSENT)), None
    alone = Labels.of(view=WEIGHTS_ALONE)
    yield f"{kind}, weights alone", _Place(alone, "local"), _Place(alone, "global")
    for size in sizes:
        yield f"{kind}, sum of {size}", None, _sum_of(size)


def _cell(place: _Place | None, value: Value | None) -> str:
    """The cell of a place, empty where a line has none at a level."""
    return "" if place is None else value_cell(value)


def _comparisons(
    summary: Summary, values_by_metric: Mapping[str, _Values], place: _Place
) -> tuple[dict[str, Value], dict[str, Value]]:
    """By kind the gains over held-out examples, and those over the baseline guess."""
    differences, margins = (
        {
            kind: value
            for metric in summary.gains
            for kind in summary.kinds
            if (value := values_by_metric[metric + of][kind, place])
        }
        for of in (".difference", "")
    )
    return differences, margins


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


def _reconstruction_value(summary: Summary, source: str, metric: str, kind: str, place: _Place) -> Value | None:
    """A value of one attack about a kind, from one view."""
    row = _reconstruction_row(summary, source, metric, kind, place)
    return None if row is None else row[2]


def _reconstruction_row(
    summary: Summary, source: str, metric: str, kind: str, place: _Place
) -> tuple[str, Labels, Value] | None:
    """Level, labels and value of the row of one attack about a kind, from one view."""
    source_labels = _source_labels(summary, source)
    for level, about, labels, value in summary.entries(metric, place.labels.plus(**dict(source_labels.items))):
        if place.level not in (None, level):
            continue
        if about == kind and "coin" not in labels and labels.only(["source"]) == source_labels:
            return level, labels, replace(value, clusters=summary.clusters(source, metric, level, kind, labels))
    return None


def _source_labels(summary: Summary, source: str) -> Labels:
    """The label that rows of an attack have in a summary: none for the first."""
    return Labels.of(source=source if source in summary.leaks[1:] else None)


def _identified_kinds(values_by_metric: Mapping[str, _Values], kinds: Collection[str], place: _Place) -> list[str]:
    """The kinds that are identified significantly more often than held-out examples, all kinds at once."""
    values = _identified_differences(values_by_metric, kinds, place)
    return [kind for kind, value in _widen(values, shares=True).items() if value.low > 0]


def _identified_differences(
    values_by_metric: Mapping[str, _Values], kinds: Collection[str], place: _Place
) -> dict[str, Value]:
    """By how much more often examples of each kind are identified than held-out examples."""
    shares = values_by_metric.get("identified.difference", {})
    return {kind: value for kind in kinds if (value := shares.get((kind, place)))}


def _share_of(values_by_metric: Mapping[str, _Values], kind: str, place: _Place) -> Value | None:
    """The share of the examples of a kind that are identified; None where none was looked up."""
    return values_by_metric.get("identified", {}).get((kind, place))


def _verdict(
    differences: Mapping[str, Value],
    margins: Mapping[str, Value],
    identified: Collection[str] = (),
    shares: Mapping[str, Value] = MappingProxyType({}),
) -> str:
    """The result of one view for each kind in words: first against held-out examples, then against the baseline guess.

    A kind leaks where its reconstructions are better than those of held-out examples. They must also be better than the
    baseline guess, or `identified` more often than held-out examples. Intervals are widened to hold for all kinds at
    once, by Bonferroni. `shares` are those of the table, to be shown with the words.
    """
    differences, margins = _widen(differences), _widen(margins)
    _, closer = _leaking_and_closer(differences, margins, identified)
    others = {kind: value for kind, value in differences.items() if kind not in closer}
    against_held_out = _sort_by_sign(others, "leaks {}", "further off than held-out examples for {}")
    if closer:
        named = [f"{kind} (identified {shares[kind].value:.2f})" if kind in shares else kind for kind in closer]
        against_held_out.append(
            "closer than held-out examples, but not significantly better than the baseline guess"
            + ", nor identified significantly more often than held-out examples" * bool(shares)
            + f", for {', '.join(named)}"
        )
    missing = [kind for kind in margins if kind not in differences]
    if missing:
        against_held_out.append(f"no held-out example to compare with for {', '.join(missing)}")
    against_prior = _sort_by_sign(margins, "better for {}", "worse for {}")
    prior = f" (against the baseline guess, picked by the truth: {'; '.join(against_prior)})" if against_prior else ""
    return "; ".join(against_held_out) + prior


def _adjusted_text(
    differences: Mapping[str, Value], margins: Mapping[str, Value], identified: Mapping[str, Value]
) -> str:
    """The intervals that decide the words, where they contain 0 and those of the rows do not."""
    texts = []
    for name, values, is_share in (
        ("gain over held-out examples", differences, False),
        ("gain over the best guess", margins, False),
        ("identified, in − out", identified, True),
    ):
        for kind, value in _widen(values, shares=is_share).items():
            if values[kind].is_significant and not value.is_significant:
                texts.append(f"{kind}, {name} {value.text(2)}")
    if not texts:
        return ""
    number = max(map(len, (differences, margins, identified)))
    return (
        f" The words follow intervals that hold for all {number} kinds at once. They are wider than those of the rows, "
        f"and contain 0 here: {'; '.join(texts)}."
    )


def _leaking_and_closer(
    differences: Mapping[str, Value], margins: Mapping[str, Value], identified: Collection[str]
) -> tuple[list[str], list[str]]:
    """The kinds closer than held-out examples: those that leak, and the others; intervals are widened."""
    better = {*identified, *(kind for kind, value in margins.items() if value.low > 0)}
    above = [kind for kind, value in differences.items() if value.low > 0]
    return [kind for kind in above if kind in better], [kind for kind in above if kind not in better]


def _widen(values: Mapping[str, Value], *, shares: bool = False) -> dict[str, Value]:
    """The values with intervals that hold for all of them at once: 95 % each becomes 1 − 0.05 / their number.

    Half-widths grow as quantiles of Student's t do with one degree of freedom less than there are clusters. Those of
    Wilson and Newcombe, for `shares`, grow at most as the square of normal quantiles.
    """
    from scipy.special import ndtri, stdtrit

    tail = 1 - 0.025 / max(1, len(values))
    floor = float(ndtri(tail) / ndtri(0.975)) ** 2 if shares else 1.0
    widened = {}
    for kind, value in values.items():
        degrees = value.clusters - 1
        ratio = max(floor, float(stdtrit(degrees, tail) / stdtrit(degrees, 0.975)))
        low, high = (value.value + ratio * (end - value.value) for end in (value.low, value.high))
        widened[kind] = replace(value, low=low, high=high)
    return widened


def _sort_by_sign(values: Mapping[str, Value], above_phrase: str, below_phrase: str) -> list[str]:
    """The kinds whose value is above 0, below 0 and not significantly different from 0, each in a phrase."""
    phrases: dict[str, list[str]] = {above_phrase: [], below_phrase: [], "not significant for {}": []}
    for kind, value in values.items():
        phrase = list(phrases)[(0 if value.low > 0 else 1) if value.is_significant else 2]
        phrases[phrase].append(kind)
    return [phrase.format(", ".join(kinds)) for phrase, kinds in phrases.items() if kinds]
