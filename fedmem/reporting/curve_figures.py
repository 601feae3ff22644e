"""Figures of measures that declare a label of whole numbers to be drawn against, such as the rounds since an event."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmem.contracts.measurement import Labels
from fedmem.reporting import drawing
from fedmem.reporting.cells import Value
from fedmem.reporting.measures import Variant, label_meanings
from fedmem.reporting.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEVELS = ("local", "global")
_BELOW = 0.06
"""The share of the height of a panel that is added below for the counts."""

Curve = Sequence[tuple[int, Value]]
"""Values by the whole number of the label."""


@dataclass(frozen=True, kw_only=True)
class SummaryFigure:
    """A figure of measures with one unit and one null: its file name without the ending, and its content."""

    name: str
    drawing: drawing.Drawing
    caption: str


def curve_figures(summary: Summary) -> Iterator[SummaryFigure]:
    """One figure for each measure and set of other labels: a panel for each kind, a curve for each level."""
    groups: dict[tuple[str, Labels], list[Variant]] = {}
    for variant in summary.measures:
        if against := variant.measure.against:
            groups.setdefault((variant.metric, variant.labels.without(against)), []).append(variant)
    for (_, labels), variants in groups.items():
        panels = {kind: curves for kind in summary.kinds if (curves := _curves(summary, variants, kind))}
        if panels:
            yield _figure(variants, labels, panels)


def _curves(summary: Summary, variants: Sequence[Variant], kind: str) -> dict[str, Curve]:
    """Level -> its finite values, in the order of the label."""
    curves: dict[str, list[tuple[int, Value]]] = {}
    for variant in variants:
        place = variant.labels.integer(variant.measure.against)
        values = {
            "local": summary.local_values(variant, kind),
            "global": summary.value(variant.metric, "global", kind, variant.labels),
        }
        for level, value in values.items():
            if value is not None and math.isfinite(value.value):
                curves.setdefault(level, []).append((place, value))
    return {level: sorted(curves[level], key=lambda point: point[0]) for level in _LEVELS if level in curves}


def _figure(variants: Sequence[Variant], labels: Labels, panels: Mapping[str, Mapping[str, Curve]]) -> SummaryFigure:
    """The figure of one measure."""
    measure = variants[0].measure
    title = " ".join([*labels.words(), measure.title])
    subtitle = "summary of the run; lines: 95 % intervals over runs and examples; below: n, the examples behind a value"
    subtitle += "" if math.isnan(measure.null) else "; dotted: without memorisation"
    has_break = any(len(curves) == 2 for curves in panels.values())
    subtitle += "; thick: from the owning client to the aggregate of the same round" if has_break else ""
    width = 3.6 * len(panels) + 0.8
    height = 3.4 + drawing.LINE * len(drawing.break_lines(subtitle, width))
    figure, grid = drawing.figure_with(width, height, 1, len(panels), sharey=True)
    for axes, (kind, curves) in zip(grid, panels.items(), strict=True):
        drawing.tidy(axes)
        drawing.name_panel(axes, kind)
        _draw_curves(axes, curves)
        if not math.isnan(measure.null):
            axes.axhline(measure.null, color=drawing.FAINT, linestyle=":", linewidth=1.3, zorder=1)
        axes.set_xlabel(label_meanings().get(measure.against, measure.against))
    # the panels share their axis, which has to fit the curves of all
    low, high = grid[0].get_ylim()
    grid[0].set_ylim(low - _BELOW * (high - low), high)
    grid[0].set_ylabel(drawing.short_label(measure.unit or measure.title))
    drawing.finish(figure, title, subtitle, grid)
    slug = "_".join([*labels.words(), measure.name])
    return SummaryFigure(
        name="".join(character if character.isascii() and character.isalnum() else "_" for character in slug),
        drawing=drawing.Drawing(title=title, subtitle=subtitle, figure=figure, grid=grid),
        caption=f"{title}, by kind of audit example; {subtitle}",
    )


def _draw_curves(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """The curves of a panel, with n at each whole number and the break between the levels at the first."""
    from matplotlib.ticker import MaxNLocator

    for level, curve in curves.items():
        style, places = drawing.STYLES[level], [place for place, _ in curve]
        for place, value in curve:
            if not math.isnan(value.low + value.high):
                axes.plot([place, place], [value.low, value.high], color=style["color"], linewidth=1.2)
        values = [value.value for _, value in curve]
        axes.plot(places, values, label=level, linewidth=1.6, markersize=4.5, markeredgewidth=0, **style)
    firsts = [curve[0] for curve in curves.values()]
    if len(firsts) == 2 and firsts[0][0] == firsts[1][0]:
        axes.plot([firsts[0][0]] * 2, [value.value for _, value in firsts], color=drawing.FAINT, linewidth=4, zorder=0)
    counts = {place: value.n for curve in curves.values() for place, value in curve}
    for place, n in counts.items():
        text = axes.get_xaxis_transform()
        axes.text(place, 0.01, str(n), transform=text, ha="center", va="bottom", fontsize=6.5, color=drawing.FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
