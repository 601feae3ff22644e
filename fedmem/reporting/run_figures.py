"""The figures of one run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedmem.estimation.roc import null_tpr
from fedmem.estimation.saturation import SaturationZone
from fedmem.reporting import drawing
from fedmem.reporting.cells import Value, rate
from fedmem.reporting.measures import Variant
from fedmem.reporting.row_cells import kind_with_count
from fedmem.reporting.summary import Summary
from fedmem.reporting.summary_figures import summary_figures

_LEAKS = (
    ("local, message", "local", "message"),
    ("local, first step", "others", "first_step"),
    ("global, aggregate", "global", "aggregate"),
)
"""Label, style and view of the lines in the figure of reconstruction."""


@dataclass(frozen=True, kw_only=True)
class RunFigure:
    """A figure of a run.

    Attributes:
        name: Name of its file, without the ending.
        part: where a page shows it: measures over rounds, examples as points, reconstruction, or models.
        drawing: What is drawn.
        caption: what it shows.
        is_headline: whether it is about a measure of the short table.
    """

    name: str
    part: Literal["rounds", "points", "reconstruction", "models"]
    drawing: drawing.Drawing
    caption: str
    is_headline: bool = True


def run_figures(summary: Summary) -> Iterator[RunFigure]:
    """Every figure that the rows of this run can fill."""
    for measure in summary.measures:
        panels: dict[str, list[drawing.Line]] = {}
        zones: dict[str, SaturationZone] = {}
        rates: set[float] = set()
        has_varying_n = has_bounds = False
        for kind in summary.kinds:
            series_by_style = {
                ("local, owning client", "local"): summary.local_series(measure, kind),
                ("local, other clients", "others"): summary.series(
                    measure.metric, "local", kind, measure.labels.plus(place="others")
                ),
                ("global", "global"): summary.series(measure.metric, "global", kind, measure.labels),
            }
            if any(series_by_style.values()):
                drawn_of_kind = _lines(series_by_style, rates=measure.is_rate)
                limits = _limits(
                    summary,
                    measure,
                    kind,
                    [round_number for series in series_by_style.values() for round_number, _ in series],
                )
                has_bounds |= bool(limits)
                panels[kind_with_count(kind, _values_of(series_by_style.values()))] = [*drawn_of_kind, *limits]
                zones[kind_with_count(kind, _values_of(series_by_style.values()))] = summary.saturation_zone(
                    measure.metric, kind
                )
                has_varying_n |= len({value.n for series in series_by_style.values() for _, value in series}) > 1
                rates |= {value.fpr for series in series_by_style.values() for _, value in series if value.fpr > 0}
        if panels:
            nulls = [null for null in measure.nulls or (measure.null,) if not math.isnan(null)]
            subtitle = "bands: 95 % intervals over runs and examples"
            if rates:
                ends = [min(rates), max(rates)]
                nulls = [null_tpr(10 / end) for end in ends]
                rate_range = " to ".join(dict.fromkeys(rate(end) for end in ends))
                subtitle += (
                    f"; FPR: the smallest that each round supports, {rate_range}; dotted: TPR without memorisation at "
                    "the smallest and the largest; equal scores are refused together"
                )
            lines = [line for panel_lines in panels.values() for line in panel_lines]
            if any(any(line.wide) for line in lines):
                subtitle += "; hollow: the interval spans more than half of 0 to 1"
            if has_bounds:
                subtitle += "; at most: the bound by the guaranteed epsilon after all rounds, for any attack"
            if has_varying_n:
                subtitle += (
                    ". Local: only the n examples whose owning client participated in the round. The set of examples "
                    "changes from round to round, and a curve can bend for that reason alone"
                )
            title = measure.full_name.partition(" at ")[0]
            unit = measure.unit or measure.title.partition(" at ")[0]
            text = f"{title} over rounds, by kind of audit example; {subtitle}"
            figure = drawing.over_rounds(title, unit, panels, subtitle, nulls=nulls, zones=zones)
            yield RunFigure(
                name=measure.slug, part="rounds", drawing=figure, caption=text, is_headline=measure.headline
            )
    for measure in summary.measures:
        pairs = summary.examples(measure)
        if any(local for local, _ in pairs.values()) and not math.isnan(measure.null):
            title, unit = (
                f"{measure.metric}: local against global",
                f"{measure.metric}{measure.unit and ', '}{measure.unit}",
            )
            subtitle = "one point for each example, larger where several coincide; dotted: without memorisation"
            zones = {kind: summary.saturation_zone(measure.metric, kind) for kind in pairs}
            figure = drawing.local_against_global(title, unit, pairs, measure.null, subtitle, zones=zones)
            yield RunFigure(
                name=f"{measure.slug}_scatter",
                part="points",
                drawing=figure,
                caption=f"{title}; {subtitle}",
                is_headline=measure.headline,
            )
    for shown in summary_figures(summary):
        yield RunFigure(name=shown.name, part="points", drawing=shown.drawing, caption=shown.caption, is_headline=False)
    panels = {}
    for kind in summary.kinds:
        series_by_style = {(label, style): summary.leakage_by_round(view, kind) for label, style, view in _LEAKS}
        if any(series_by_style.values()):
            panels[kind_with_count(kind, _values_of(series_by_style.values()))] = _lines(series_by_style)
    if panels:
        subtitle = (
            "gain over the baseline guess: ins minus outs of the same client; attacked rounds only; "
            "bands: 95 % intervals over clients or runs, the wider"
        )
        figure = drawing.over_rounds(
            "reconstruction",
            f"{summary.known_measures[summary.gain].unit} over the baseline guess, in − out",
            panels,
            subtitle,
            nulls=[0.0],
            null_label="without leakage",
        )
        text = f"Reconstruction over rounds, by kind of audit example; {subtitle}"
        yield RunFigure(name="reconstruction", part="reconstruction", drawing=figure, caption=text)
    yield from _of_models(summary)


def _of_models(summary: Summary) -> Iterator[RunFigure]:
    """Figures of what is about models, not about kinds: utility, and each measure that no other section shows."""
    utility = [measure for measure in summary.known_measures.values() if measure.section == "utility"]
    others = [measure for measure in summary.known_measures.values() if not measure.section and measure.headline]
    for name, measures in (("utility", utility), *((measure.name, [measure]) for measure in others)):
        series_by_measure = {
            measure: {(level, level): summary.series(measure.name, level, "") for level in ("local", "global")}
            for measure in measures
        }
        lines_by_measure = {
            measure: lines for measure, series in series_by_measure.items() if (lines := _lines(series))
        }
        if lines_by_measure:
            panels = {measure.name.replace("_", " "): lines for measure, lines in lines_by_measure.items()}
            units = [measure.unit or measure.title for measure in lines_by_measure]
            nulls = [measure.null for measure in lines_by_measure if name != "utility" and not math.isnan(measure.null)]
            title = "utility" if name == "utility" else measures[0].title
            subtitle = "mean over models; bands: 95 % intervals over runs"
            text = f"{title}; {subtitle}"
            figure = drawing.over_rounds(title, units, panels, subtitle, nulls=nulls)
            yield RunFigure(name=_slug(name), part="models", drawing=figure, caption=text)


def _slug(name: str) -> str:
    """A name for files."""
    return "".join(character if character.isascii() and character.isalnum() else "_" for character in name)


def _limits(summary: Summary, measure: Variant, kind: str, rounds: Sequence[int]) -> list[drawing.Line]:
    """The bounds of a measure by the guarantee, as level lines; the bound of a rate changes with its threshold."""
    lines = []
    for level, place in (("local", "owner"), ("global", None)):
        value = summary.value(f"{measure.metric}.bound", level, kind, measure.labels.plus(place=place))
        if value is not None and measure.measure.bound != "tpr" and math.isfinite(value.value):
            ends, values = (min(rounds), max(rounds)), [value.value] * 2
            style = f"{level} bound"
            lines.append(
                drawing.Line(
                    label=f"{level}, at most", style=style, rounds=ends, values=values, lows=values, highs=values
                )
            )
    return lines


def _values_of(curves: Iterable[Sequence[tuple[int, Value]]]) -> Iterator[Value]:
    return (value for series in curves for _, value in series)


def _lines(
    series_by_style: Mapping[tuple[str, str], Sequence[tuple[int, Value]]], *, rates: bool = False
) -> list[drawing.Line]:
    """Every series that is not empty as a line; rates with wide intervals are marked."""
    return [
        drawing.Line(
            label=label,
            style=style,
            rounds=[round_number for round_number, _ in series],
            values=[value.value for _, value in series],
            lows=[value.low for _, value in series],
            highs=[value.high for _, value in series],
            wide=[rates and value.is_wide for _, value in series],
        )
        for (label, style), series in series_by_style.items()
        if series
    ]
