"""Figures of a comparison: local against global, what aggregation keeps, measures over rounds, and utility."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fedmem.reporting.drawing import (
    FAINT,
    LINE,
    SETTINGS,
    Drawing,
    break_lines,
    escape_mathematics,
    figure_with,
    finish,
    name_panel,
    shade_saturated,
    short_label,
    tidy,
)
from fedmem.studies.comparison import Comparison
from fedmem.studies.contrasts import Mean, mean_of
from fedmem.studies.quantities import Quantity, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP*X"
DASHES = ("-", "--", ":", "-.")

_SUBTITLE = "bars and bands: 95 % intervals over seeds"
_TRADES = f"upper left is better; filled: no setting is better in one and no worse in the other; {_SUBTITLE}"


def draw_all(comparison: Comparison) -> Iterator[tuple[str, Drawing, str]]:
    """Every figure that the values can fill: name, drawing, and what it shows. Equal values give equal drawings."""
    for (metric, parts, title), group in groupby(
        comparison.tested_series,
        key=lambda series: (series.quantity.metric, series.quantity.parts, series.quantity.title),
    ):
        group_series = list(group)
        name = slug(" ".join([*parts, metric]))
        pairs = [
            (whole.quantity.kind, local, whole)
            for local in group_series
            for whole in group_series
            if (local.quantity.level, whole.quantity.level) == ("local", "global")
            and local.quantity.kind == whole.quantity.kind
        ]
        if pairs:
            text = f"{title}: the owning client's model against the aggregate, by setting; {_SUBTITLE}"
            yield f"{name}_levels", _levels(comparison, title, pairs), text
        lines = [series for series in group_series if len(series.rounds) > 1]
        if lines:
            text = f"{title} over rounds, by setting; {_SUBTITLE}"
            yield f"{name}_rounds", _over_rounds(comparison, title, lines), text
    retention_by_quantity: dict[Quantity, list[Any]] = {}
    for entry in comparison.retention:
        retention_by_quantity.setdefault(entry.quantity, []).append(entry)
    defined_retention = {
        quantity: entries for quantity, entries in retention_by_quantity.items() if not all(o.reason for o in entries)
    }
    if defined_retention:
        text = f"retention: what the aggregate keeps of the effect at the owning client, by setting; {_SUBTITLE}"
        panels = {
            f"{quantity.title}\n{quantity.kind}": [
                Mean(value=math.nan if o.reason else o.ratio.value, low=o.ratio.low, high=o.ratio.high, n=o.ratio.n)
                for o in entries
            ]
            for quantity, entries in defined_retention.items()
        }
        yield "retention", _dots(comparison, "retention, global / local (cut at −1 and 2)", panels, (0.0, 1.0)), text
    trades: dict[Quantity, list[Any]] = {}
    for trade in comparison.trades:
        trades.setdefault(trade.quantity, []).append(trade)
    if trades:
        yield "trades", _trades(comparison, trades), f"utility against each measure of the aggregate; {_TRADES}"


def slug(text: str) -> str:
    """A name for files.

    >>> slug("lira auc")
    'lira_auc'
    """
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


def _style(setting: int) -> dict[str, Any]:
    """Colour and marker, which repeat only together after 64 settings."""
    cycle = setting // len(SETTINGS)
    return {"color": SETTINGS[setting % len(SETTINGS)], "marker": MARKERS[(setting + cycle) % len(MARKERS)]}


def _canvas(
    count: int, subtitle: str, *, sharey: bool, columns: int = 3, height: float = 2.9
) -> tuple[Any, list[Axes]]:
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    width = max(3.5 * columns + 0.6, 6.4)
    figure, grid = figure_with(
        width, height * rows + 1.1 + LINE * len(break_lines(subtitle, width)), rows, columns, sharey=sharey
    )
    for axes in grid[count:]:
        axes.set_visible(False)
    for axes in grid[:count]:
        tidy(axes)
    return figure, grid[:count]


def _bars(mean: Mean) -> list[list[float]]:
    """Lengths of an error bar to both sides; none where there is no interval."""
    if math.isnan(mean.low):
        return [[0.0], [0.0]]
    return [[mean.value - mean.low], [mean.high - mean.value]]


def _finish_figure(figure: Any, title: str, subtitle: str, grid: Sequence[Axes], labels: int) -> Drawing:
    finish(figure, title, subtitle, grid, foot=0.3 + 0.18 * ((labels - 1) // 4))
    return Drawing(title=title, subtitle=subtitle, figure=figure, grid=grid)


def _levels(comparison: Comparison, title: str, pairs: Sequence[tuple[str, Series, Series]]) -> Drawing:
    """One panel a kind, one point a setting; on the diagonal aggregation keeps everything."""
    figure, grid = _canvas(len(pairs), _SUBTITLE, sharey=False)
    for axes, (kind, local, whole) in zip(grid, pairs, strict=True):
        name_panel(axes, kind or "all")
        for setting, label in enumerate(comparison.labels):
            at_owner, at_aggregate = mean_of(local.values[setting]), mean_of(whole.values[setting])
            axes.errorbar(
                [at_owner.value],
                [at_aggregate.value],
                xerr=_bars(at_owner),
                yerr=_bars(at_aggregate),
                label=escape_mathematics(label),
                linestyle="none",
                **_style(setting),
            )
        ends = [*axes.get_xlim(), *axes.get_ylim()]
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=FAINT, linewidth=1, zorder=1)
        x, y = ([mean_of(values).value for values in side.values] for side in (local, whole))
        shade_saturated(axes, local.zone, x=x, y=y)
        axes.set_xlabel("local, owning client")
    grid[0].set_ylabel(
        short_label(f"global{', ' * bool(local.quantity.unit == 'bits')}{'bits' * (local.quantity.unit == 'bits')}")
    )
    return _finish_figure(figure, f"{title}: local against global", _SUBTITLE, grid, len(comparison.labels))


def _over_rounds(comparison: Comparison, title: str, lines: Sequence[Series]) -> Drawing:
    """One panel for each kind and level, one line a setting."""
    from matplotlib.ticker import MaxNLocator

    figure, grid = _canvas(len(lines), _SUBTITLE, sharey=False, columns=2)
    for axes, series in zip(grid, lines, strict=True):
        name_panel(axes, ", ".join(filter(None, (series.quantity.kind, series.quantity.level))))
        rounds = list(series.rounds)
        means = []
        for setting, label in enumerate(comparison.labels):
            setting_means = [mean_of(series.rounds[round_number][setting]) for round_number in rounds]
            means += [m.value for m in setting_means]
            style = _style(setting)
            lows, highs = [m.low for m in setting_means], [m.high for m in setting_means]
            axes.fill_between(rounds, lows, highs, color=style["color"], alpha=0.12, linewidth=0)
            dash = DASHES[setting // len(SETTINGS) % len(DASHES)]
            axes.plot(
                rounds,
                [m.value for m in setting_means],
                label=escape_mathematics(label),
                linewidth=1.5,
                markersize=4,
                linestyle=dash,
                **style,
            )
        shade_saturated(axes, series.zone, y=means)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    return _finish_figure(figure, f"{title} over rounds", _SUBTITLE, grid, len(comparison.labels))


def _dots(comparison: Comparison, title: str, panels: Mapping[str, Sequence[Mean]], marks: Sequence[float]) -> Drawing:
    """One panel each, one row a setting."""
    height = 0.8 + 0.24 * len(comparison.labels)
    figure, grid = _canvas(len(panels), _SUBTITLE, sharey=True, height=height)
    for axes, (name, means) in zip(grid, panels.items(), strict=True):
        name_panel(axes, name, 9)
        for setting, mean in enumerate(means):
            axes.errorbar([mean.value], [setting], xerr=_bars(mean), linestyle="none", **_style(setting))
        for mark in marks:
            axes.axvline(mark, color=FAINT, linestyle=":", linewidth=1, zorder=1)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, marks[0] - 1), min(high, marks[-1] + 1))  # intervals of ratios may have no end
        axes.set_yticks(range(len(comparison.labels)), [short_label(label) for label in comparison.labels])
        axes.set_ylim(len(comparison.labels) - 0.5, -0.5)
    drawing = _finish_figure(figure, title, _SUBTITLE, grid, 1)
    # only now: the figure names its rows, and a page has them in its legend
    for bars, label in zip(grid[0].containers, comparison.labels, strict=True):
        bars.set_label(escape_mathematics(label))
    return replace(drawing, has_named_rows=True)


def _trades(comparison: Comparison, trades: Mapping[Quantity, Sequence[Any]]) -> Drawing:
    """One panel a measure and kind; to the upper left is better: more accuracy, less memorisation."""
    figure, grid = _canvas(len(trades), _TRADES, sharey=True)
    for axes, (quantity, entries) in zip(grid, trades.items(), strict=True):
        name_panel(axes, f"{quantity.title}\n{quantity.kind}", 9)
        for trade in entries:
            marker_style = "full" if trade.better < 0 else "none"
            axes.errorbar(
                [trade.harm.value], [trade.use.value], xerr=_bars(trade.harm), yerr=_bars(trade.use), linestyle="none",
                label=escape_mathematics(comparison.labels[trade.setting]),
            fillstyle=marker_style,
            **_style(trade.setting),
            )  # fmt: skip
        zone = next(series.zone for series in comparison.series if series.quantity == quantity)
        shade_saturated(axes, zone, x=[trade.harm.value for trade in entries])
        axes.set_xlabel(short_label(", ".join(filter(None, ("global", quantity.unit if quantity.scale == 1 else "")))))
    grid[0].set_ylabel("test accuracy")
    return _finish_figure(figure, "utility against memorisation", _TRADES, grid, len(comparison.labels))
