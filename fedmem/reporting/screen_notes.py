"""The lines below the values of a first screen: reconstruction, guarantees, and what the values leave open."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from fedmem.reporting.cells import number
from fedmem.reporting.screen_lines import MORE, count_text
from fedmem.reporting.verdict import list_text
from fedmem.results.run_summary import Finding, GuaranteeSummary, KindSummary, Leak, Place, RunSummary

SCHEDULE = "for this schedule"
"""Marks an epsilon of the participation that was drawn."""


def reconstruction_text(leaks: Sequence[Leak]) -> str:
    """The kinds that leak from each view that is sent, and those closer than held-out examples; attacks by name."""
    sent = [leak for leak in leaks if leak.is_sent]
    several = len({leak.source for leak in sent}) > 1
    texts = []
    for leak in sent:
        shown = [f"leaks {list_text(leak.leaking)}"] * bool(leak.leaking)
        closer = f"is closer to {list_text(leak.closer)} than to held-out examples"
        if not leak.leaking:
            closer += ", but not significantly better than guesses"
        shown += [closer] * bool(leak.closer)
        if shown:
            texts.append(f"{leak.view}{f' ({leak.source})' * several} {' and '.join(shown)}")
    if texts:
        return f"Reconstruction: {'; '.join(texts)}"
    if sent:
        compared = any(leak.not_significant for leak in sent)
        return f"Reconstruction: {'not significant' if compared else 'undefined'} from every view that is sent"
    return ""


def guarantee_text(summary: RunSummary) -> str:
    """The guarantee of each part of the scenario, with its limits in short."""
    texts = []
    for guarantee in summary.guarantees:
        limits = "; ".join((*guarantee.other_neighbours, *guarantee.limits))
        texts.append(
            f"epsilon {_epsilons_text(guarantee)}{_target_text(guarantee.target)}, delta {guarantee.delta:.2g} "
            f"for a {guarantee.unit} ({guarantee.part}, {guarantee.adjacency}{'; ' * bool(limits)}{limits})"
        )
    return f"Guaranteed: {'; '.join(texts)}" if texts else ""


def _epsilons_text(guarantee: GuaranteeSummary) -> str:
    """The worst case first, then that of the participation that was drawn."""
    drawn = epsilon_text(guarantee.epsilon)
    if math.isnan(guarantee.largest_epsilon):
        return drawn
    return f"{epsilon_text(guarantee.largest_epsilon)} ({drawn} {SCHEDULE})"


def schedule_limits(guarantees: Sequence[GuaranteeSummary]) -> Iterator[str]:
    """The limit of a guarantee that holds for the participation that was drawn alone."""
    for one in guarantees:
        if not math.isnan(one.largest_epsilon):
            yield (
                f"Epsilon {epsilon_text(one.epsilon)} of {one.part} holds for the participation that was drawn. A "
                f"client that participates as often as it can has {epsilon_text(one.largest_epsilon)}."
            )


def epsilon_text(value: float) -> str:
    """Two decimals, or below 1 two digits: a small guarantee is never shown as zero.

    >>> epsilon_text(3.0), epsilon_text(0.0123)
    ('3.00', '0.012')
    """
    return f"{value:.2g}" if 0 < value < 1 else number(value, 2)


def _target_text(target: float) -> str:
    return "" if math.isnan(target) else f" (target {target:g})"


def left_out_text(kinds: Sequence[KindSummary]) -> str:
    """How many examples the values leave out; empty where they are about all."""
    counted = [kind for kind in kinds if any(_counts(finding) for finding in kind.findings)]
    left_out = sum(kind.examples - num_examples(kind) for kind in counted)
    return f"Left out of these values: {left_out} of {sum(kind.examples for kind in kinds)} examples" * bool(left_out)


def num_examples(kind: KindSummary) -> int:
    """The most examples that a value of a kind is about; all where no value counts examples.

    >>> num_examples(KindSummary(kind="pin", examples=80, findings=()))
    80
    """
    counts = [count for finding in kind.findings for count in _counts(finding)]
    return min(kind.examples, max(counts, default=kind.examples))


def _counts(finding: Finding) -> Iterator[int]:
    """The examples behind the values; the counts of extraction are of other things."""
    if finding.shows != "extracted":
        yield from (value.n for value in (finding.local, finding.aggregate) if value is not None)


def power_text(kinds: Sequence[KindSummary], runs: int, draws: Mapping[str, int] | None = None) -> str:
    """The standard error of memorisation as theory has it, √(1/R) and √(1/(R m)), and the widest interval observed.

    m is the fewest examples behind the mean of a kind. Examples that influence each other make it larger. Examples that
    are in or out together count once, in so many `draws` by kind.
    """
    values = [
        (kind.kind, value)
        for kind in kinds
        for finding in kind.findings
        if finding.shows == "memorised"
        for value in (finding.local, finding.aggregate)
        if value is not None and value.n
    ]
    if runs < 2 or not values:
        return ""
    draws = draws or {}
    fewest = min(min(value.n, draws.get(kind, value.n)) for kind, value in values)
    texts = [f"Power: with {runs} runs, the standard error of memorisation is about {runs**-0.5:.2f} for one example"]
    if fewest > 1:
        of_mean = (runs * fewest) ** -0.5
        what = " draws" if draws else ""
        texts.append(f", {of_mean:.2g} for a mean of {fewest}{what}, if they do not influence each other")
    halves = [half for _, value in values for half in (value.value - value.low, value.high - value.value)]
    if found := [half for half in halves if math.isfinite(half)]:
        texts.append(f"; the widest interval here reaches {max(found):.2g} from its value")
    return "".join(texts)


def released_texts(kinds: Sequence[KindSummary]) -> tuple[str, ...]:
    """The values of the released model, where these differ from those that the table reads: in full, and in short."""
    by_title: dict[str, list[str]] = {}
    shows: dict[str, str] = {}
    for kind in kinds:
        for finding in kind.findings:
            if finding.is_headline and finding.released is not None:
                value = number(finding.released.value, finding.digits - 1)
                by_title.setdefault(finding.title, []).append(f"{value} {' '.join(kind.kind.split())}")
                shows[finding.title] = finding.shows
    if not by_title:
        return ()
    title = next((title for title in by_title if shows[title] == "memorised"), next(iter(by_title)))
    released = f"Released model: {title} {', '.join(by_title[title])}"
    return (f"An aggregate is that of its owning client's last observed round. {released}", released)


def unclear_lists(summary: RunSummary) -> list[str]:
    """The names of all values that are not significant, below their null, or undefined, each list in a sentence."""
    return [f"{title[0].upper()}{title[1:]}: {places_text(found)}." for title, found in _places(summary) if found]


def _places(summary: RunSummary) -> list[tuple[str, Sequence[Place]]]:
    return [
        ("Not significant (may still be there)", summary.not_significant),
        ("below null", summary.below),
        ("undefined", summary.undefined),
    ]


def unclear_text(summary: RunSummary, width: int) -> str:
    """The values that are not significant, below their null, or undefined: named where they fit, else counted."""
    places = dict(_places(summary))
    named = "; ".join(f"{title}: {places_text(found)}" for title, found in places.items() if found)
    counts = "; ".join(f"{title}: {count_text(len(found))}" for title, found in places.items() if found)
    if not named:
        return ""
    named, counts = (f"{text[0].upper()}{text[1:]}" for text in (named, counts))
    return named if len(named) <= min(width, 100) else f"{counts} (named with {MORE})"


def places_text(places: Sequence[Place]) -> str:
    """Values by measure and kind, with their levels.

    >>> places_text([Place(kind="pin", title="exposure", level=level) for level in ("local", "retention")])
    'exposure of pin (local, retained)'
    """
    levels = {"local": "local", "global": "global", "retention": "retained"}
    texts = [f"{place.title} of {place.kind}" for place in places]
    by_value: dict[str, list[str]] = {text: [] for text in texts}
    for text, place in zip(texts, places, strict=True):
        by_value[text].append(levels[place.level])
    return ", ".join(f"{text} ({', '.join(names)})" for text, names in by_value.items())
