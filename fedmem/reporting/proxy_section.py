"""The section PROXIES of a table: what may stand for memorisation, with and without the example."""

from __future__ import annotations

from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Section, Value
from fedmem.reporting.measures import Variant, label_title
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.summary import Summary

_SIDES = ("in", "out")


def proxy_section(summary: Summary, *, everything: bool) -> Section:
    """Each proxy over in runs, over out runs, and the difference, place by place; with `everything` also the others.

    A proxy is a measure that declares the section `proxies`. Its `gain` is the measure of the difference. The label
    `statistic` says over which runs the other value is: the value without it is over the runs of the other side. A
    proxy without such a label is itself a difference.
    """
    blocks = []
    for measure in _proxies(summary):
        for labels in variants_of(summary, measure):
            rows = []
            for kind in summary.kinds:
                for level, place in _places(everything=everything):
                    of_place = labels.plus(place=place or None)
                    inside, outside = (value_of_side(summary, measure, level, kind, of_place, side) for side in _SIDES)
                    gap = summary.value(measure.gain, level, kind, of_place) if measure.gain else None
                    if not inside and not outside and not gap:  # a proxy that has no value but a difference
                        gap = summary.value(measure.name, level, kind, of_place)
                    if inside or outside or gap:
                        variant = Variant(measure=measure, title=measure.title, null=measure.null)
                        cells = (value_cell(value, variant) for value in (inside, outside, gap))
                        where = level if place != "others" else "others"
                        rows.append((f"{kind}, {where}", count_cell(inside, outside, gap), *cells))
            titles = [measure.title, *(label_title(name, value) for name, value in labels.items)]
            blocks.append((" ".join(titles) + (f", {measure.unit_text}" if measure.unit_text else ""), tuple(rows)))
    notes = [
        "A proxy is not memorisation. Over runs without the example it shows difficulty; only in − out is an effect of "
        "training on the example. The values of p are not adjusted for their number.",
        *_signs(_proxies(summary)),
    ]
    return Section(
        title="PROXIES",
        columns=("", "n", "in", "out", "in − out"),
        blocks=tuple(blocks),
        notes=tuple(notes) if blocks else (),
    )


def _signs(proxies: list[Measure]) -> list[str]:
    """Which sign of in − out means trained on, for the proxies of which it is known."""
    texts = {
        "lower": "Training on an example is expected to lower these, so that in − out is negative: {}.",
        "higher": "Training on an example is expected to raise these, so that in − out is positive: {}.",
    }
    titles = {sign: [measure.title for measure in proxies if measure.trained_on == sign] for sign in texts}
    return [text.format(", ".join(titles[sign])) for sign, text in texts.items() if titles[sign]]


def _proxies(summary: Summary) -> list[Measure]:
    """The proxies of a run, without the measures of their differences."""
    declared = [measure for measure in summary.known_measures.values() if measure.section == "proxies"]
    gains = {measure.gain for measure in declared}
    return [measure for measure in declared if measure.name not in gains and variants_of(summary, measure)]


def variants_of(summary: Summary, measure: Measure) -> list[Labels]:
    """The labels that tell the variants of a proxy apart, besides place and side."""
    entries = [*summary.entries(measure.name), *(summary.entries(measure.gain) if measure.gain else ())]
    variants = [labels.without("place", "statistic") for _, about, labels, _ in entries if about in summary.kinds]
    return list(dict.fromkeys(variants))


def value_of_side(summary: Summary, measure: Measure, level: str, kind: str, labels: Labels, side: str) -> Value | None:
    """The value over the runs of one side: with its label, or without a label if the other side has one."""
    other = _SIDES[1 - _SIDES.index(side)]
    value = summary.value(measure.name, level, kind, labels.plus(statistic=side))
    if value is None and summary.value(measure.name, level, kind, labels.plus(statistic=other)):
        value = summary.value(measure.name, level, kind, labels)
    return value


def _places(*, everything: bool) -> tuple[tuple[str, str], ...]:
    """Level and place, in the order of rows."""
    return (("local", "owner"), ("global", ""), *((("local", "others"),) if everything else ()))
