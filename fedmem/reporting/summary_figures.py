"""Figures of measures that a run has only in its summary: values at both levels with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from fedmem.reporting import drawing
from fedmem.reporting.cells import Value
from fedmem.reporting.curve_figures import SummaryFigure, curve_figures
from fedmem.reporting.measures import Variant
from fedmem.reporting.row_cells import kind_with_count
from fedmem.reporting.summary import Summary

_LEVELS = {"local": 0.14, "global": -0.14}
"""Level -> how far above the middle of its row a value is drawn."""


def summary_figures(summary: Summary) -> Iterator[SummaryFigure]:
    """One figure for all measures with the same unit and null that have no value at any observed round.

    Measures that declare a label of whole numbers to be drawn against have a figure of curves each.
    """
    groups: dict[tuple[str, float | None], list[Variant]] = {}
    yield from curve_figures(summary)
    for measure in (measure for measure in summary.measures if not measure.measure.against):
        if not any(_has_rounds(summary, measure, kind) for kind in summary.kinds):
            null = None if math.isnan(measure.null) else measure.null
            groups.setdefault((measure.measure.unit or measure.title, null), []).append(measure)
    for (unit, null), measures in groups.items():
        panels = {kind: rows for kind in summary.kinds if (rows := _rows(summary, measures, kind))}
        if panels:
            subtitle = "summary of the run; lines: 95 % intervals over runs and examples"
            subtitle += "; dotted: without memorisation" if null is not None else ""
            titles = list(dict.fromkeys(measure.title for measure in measures))
            title = titles[0] if len(titles) == 1 else f"{titles[0]} and others"
            yield SummaryFigure(
                name=f"{measures[0].slug}_summary",
                drawing=_draw((title, unit, subtitle), panels, null),
                caption=f"{', '.join(titles)}, by kind of audit example; {subtitle}",
            )


def _has_rounds(summary: Summary, measure: Variant, kind: str) -> bool:
    return bool(summary.local_series(measure, kind) or summary.series(measure.metric, "global", kind, measure.labels))


def _rows(summary: Summary, measures: Sequence[Variant], kind: str) -> dict[str, dict[str, Value]]:
    """Title -> level -> value, of the measures that have a finite value of this kind."""
    rows = {}
    for measure in measures:
        values = {
            "local": summary.local_values(measure, kind),
            "global": summary.value(measure.metric, "global", kind, measure.labels),
        }
        finite = {level: value for level, value in values.items() if value and math.isfinite(value.value)}
        if finite:
            rows[measure.full_name] = finite
    return rows


def _draw(
    heads: tuple[str, str, str], panels: Mapping[str, Mapping[str, Mapping[str, Value]]], null: float | None
) -> drawing.Drawing:
    title, unit, subtitle = heads
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    width = 3.2 * len(panels) + 1.8
    height = 0.34 * len(names) + 1.4 + drawing.LINE * len(drawing.break_lines(subtitle, width))
    figure, grid = drawing.figure_with(width, height, 1, len(panels), sharey=True)
    for axes, (kind, rows) in zip(grid, panels.items(), strict=True):
        drawing.tidy(axes)
        for place, name in enumerate(names):
            for level, value in rows.get(name, {}).items():
                style = drawing.STYLES[level]
                y = len(names) - 1 - place + _LEVELS[level]
                if not math.isnan(value.low + value.high):
                    axes.plot([value.low, value.high], [y, y], color=style["color"], linewidth=1.4)
                axes.plot([value.value], [y], color=style["color"], marker=style["marker"], linestyle="", label=level)
        if null is not None:
            axes.axvline(null, color=drawing.FAINT, linestyle=":", linewidth=1, zorder=1)
        behind = (value for values in rows.values() for value in values.values())
        drawing.name_panel(axes, kind_with_count(kind, behind))
        axes.set_xlabel(drawing.short_label(unit))
        axes.locator_params(axis="x", nbins=5)
        axes.set_ylim(-0.5, len(names) - 0.5)
    ends = [end for axes in grid for end in axes.get_xlim()]
    for axes in grid:
        axes.set_xlim(min(ends), max(ends))
    grid[0].set_yticks(range(len(names)), [drawing.short_label(name) for name in reversed(names)])
    drawing.finish(figure, title, subtitle, grid)
    return drawing.Drawing(title=title, subtitle=subtitle, figure=figure, grid=grid, has_named_rows=True)
