"""The sentences of a comparison or sweep: what differs significantly, what does not, and what is undefined."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from fedmem.reporting.verdict import list_text
from fedmem.studies.comparison import Comparison
from fedmem.studies.contrasts import ENOUGH_SEEDS
from fedmem.studies.reading_notes import FEW_SEEDS
from fedmem.studies.study_summary import Sentence, SettingValue, State, Tested

PLACES = {"local": "owning client", "global": "aggregate", "retention": "retention"}
"""Level -> what sentences call it."""

_AT = {"local": "at the owning client", "global": "in the aggregate"}


Entry = tuple[int, Tested]
"""A difference and its place in the summary."""


def sentences_of(
    comparison: Comparison, differences: Sequence[Tested], values: Sequence[SettingValue]
) -> Iterator[Sentence]:
    """The sentences of a study: significant ones first, those with the smallest p first, then the others.

    Args:
        comparison: The settings and seeds.
        differences: All tested differences.
        values: The means of all settings; they decide the sentences where nothing is tested.
    """
    entries = list(enumerate(differences))
    if not entries:
        yield from _without_values(comparison, entries)
        yield from _extremes(values)
        return
    if len(comparison.seeds) == 1:
        text = "With one seed no difference has an interval, so all differences are undefined."
        yield _sentence(text, "undefined", entries)
        return
    significant = [entry for entry in entries if entry[1].is_significant]
    groups = [
        *_by([e for e in significant if e[1].between == "settings"], lambda e: (e.setting, e.minus, e.verdict)),
        *_by([e for e in significant if e[1].between == "kinds"], lambda e: (e.kind, e.minus, e.verdict)),
        *_by([e for e in significant if e[1].between == "levels"], lambda e: e.verdict),
    ]
    for group in sorted(groups, key=lambda group: min(entry.p for _, entry in group)):
        yield _sentence(_significant_text(group), "significant", group)
    of_settings = [entry for entry in entries if entry[1].between == "settings"]
    of_kinds = [entry for entry in entries if entry[1].between == "kinds"]
    yield from _others(of_settings, lambda entry: entry.setting)
    yield from _others(of_kinds, lambda entry: (entry.kind, entry.minus))
    yield from _without_values(comparison, entries)


def _by(entries: Iterable[Entry], key: Callable[[Tested], Hashable]) -> list[list[Entry]]:
    """Entries that share a key, in the order of their first one."""
    groups: dict[Hashable, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(key(entry[1]), []).append(entry)
    return list(groups.values())


def _sentence(text: str, state: State, entries: Sequence[Entry]) -> Sentence:
    return Sentence(
        text=text,
        state=state,
        settings=tuple(dict.fromkeys(entry.setting for _, entry in entries)),
        differences=tuple(place for place, _ in entries),
    )


def _significant_text(group: Sequence[Entry]) -> str:
    """A sentence about significant differences in one direction."""
    entry = group[0][1]
    few = f" ({FEW_SEEDS})" if min(each.seeds for _, each in group) < ENOUGH_SEEDS else ""
    if entry.between == "kinds":
        measures = list_text(_quantity_names(group, is_of_kind=False))
        return f"{entry.kind} has significantly {entry.verdict} {measures} than {entry.minus}{few}."
    names = _quantity_names(group, is_of_kind=True) if entry.between == "settings" else _kind_names(group)
    verb = "is" if len(names) == 1 else "are"
    if entry.between == "levels":
        return (
            f"{_AT[entry.level].capitalize()}, {list_text(names)} {verb} significantly {entry.verdict} than "
            f"{_AT[entry.minus]}{few}."
        )
    return (
        f"With {entry.setting}, {list_text(names)} {verb} significantly {entry.verdict} than with {entry.minus}{few}."
    )


def _quantity_names(group: Sequence[Entry], *, is_of_kind: bool) -> list[str]:
    """Each measure with the places where it differs, the smallest p first."""
    ordered = [entry for _, entry in sorted(group, key=lambda pair: (pair[1].p, pair[0]))]
    places: dict[str, list[str]] = {}
    for entry in ordered:
        name = f"{entry.title} of {entry.kind}" if entry.kind and is_of_kind else entry.title
        places.setdefault(name, []).append(PLACES[entry.level])
    return [f"{name} ({', '.join(levels)})" for name, levels in places.items()]


def _kind_names(group: Sequence[Entry]) -> list[str]:
    ordered = [entry for _, entry in sorted(group, key=lambda pair: (pair[1].p, pair[0]))]
    return list(dict.fromkeys(f"{entry.title} of {entry.kind}" for entry in ordered))


def _others(entries: Sequence[Entry], key: Callable[[Tested], Hashable]) -> Iterator[Sentence]:
    """Settings, or pairs of kinds, without a significant difference: not significant, identical or undefined."""
    quiet = [group for group in _by(entries, key) if not any(entry.is_significant for _, entry in group)]
    undefined = [group for group in quiet if all(entry.is_undefined for _, entry in group)]
    identical = [
        group
        for group in quiet
        if group not in undefined and all(entry.verdict == "identical" or entry.is_undefined for _, entry in group)
    ]
    rest = [group for group in quiet if group not in undefined and group not in identical]
    texts: tuple[tuple[list[list[Entry]], State, str, str], ...] = (
        (rest, "not significant", "No value of {} differs significantly from {}; this does not mean that none does.",
         "No value of {} differs significantly; this does not mean that none does."),
        (identical, "not significant", "In every seed, values of {} are identical to those of {}.",
         "In every seed, values are identical for {}."),
        (undefined, "undefined", "All differences of {} to {} are undefined.", "All differences of {} are undefined."),
    )  # fmt: skip
    for groups, state, of_settings, of_kinds in texts:
        for same in _same_reference(groups):
            first = same[0][0][1]
            members = [entry for group in same for entry in group]
            if first.between == "settings":
                text = of_settings.format(list_text([group[0][1].setting for group in same]), first.minus)
            else:
                pairs = [f"{group[0][1].kind} and {group[0][1].minus}" for group in same]
                text = of_kinds.format("; ".join(pairs))
            yield _sentence(text, state, members)


def _same_reference(groups: Sequence[list[Entry]]) -> list[list[list[Entry]]]:
    """Groups of settings with one reference together; all pairs of kinds together."""
    shared: dict[str, list[list[Entry]]] = {}
    for group in groups:
        entry = group[0][1]
        shared.setdefault(entry.minus if entry.between == "settings" else "", []).append(group)
    return list(shared.values())


def _without_values(comparison: Comparison, entries: Sequence[Entry]) -> Iterator[Sentence]:
    """Settings of which no run finished."""
    names = tuple(comparison.labels[setting] for setting in comparison.settings_without_values)
    if names:
        places = tuple(place for place, entry in entries if entry.minus in names)
        verb = "has" if len(names) == 1 else "have"
        text = f"{list_text(names)} {verb} no finished run, so all of its values are undefined."
        text = text if len(names) == 1 else text.replace("all of its", "all of their")
        yield Sentence(text=text, state="undefined", settings=names, differences=places)


def _extremes(values: Sequence[SettingValue]) -> Iterator[Sentence]:
    """Where nothing is tested: the settings with the smallest and the largest mean of each measure of the aggregate."""
    of_aggregate = [(place, value) for place, value in enumerate(values) if value.level == "global"]
    groups: dict[Hashable, list[tuple[int, SettingValue]]] = {}
    for place, value in of_aggregate:
        if not math.isnan(value.value):
            groups.setdefault((value.title, value.kind, tuple(sorted(value.labels.items()))), []).append((place, value))
    for group in groups.values():
        (low_place, low), (high_place, high) = (pick(group, key=lambda pair: pair[1].value) for pick in (min, max))
        name = f"{low.title} of {low.kind}" if low.kind else low.title
        ends = f"lowest with {low.setting} and highest with {high.setting}"
        if low.value < high.value:
            yield Sentence(
                text=f"In the aggregate, {name} is {ends} (not tested).",
                state="not tested",
                settings=(low.setting, high.setting),
                values=(low_place, high_place),
            )
