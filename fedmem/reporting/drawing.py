"""Figures of a run, drawn from numbers that a report has read. Nothing here opens a file or keeps global state.

The same numbers give the same bytes. The palette is here, once, for figures and pages. Local is always blue and global
always orange, after Okabe and Ito (2008), which colour-blind readers can distinguish. Settings of a comparison have
other colours. Lines differ in dash and marker as well.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.errors import shorten
from fedmem.estimation.saturation import NOWHERE, SaturationZone

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, MUTED, FAINT, GRID, PAPER = "#222222", "#555555", "#8A8A8A", "#E6E6E6", "#FFFFFF"
SETTINGS = ("#3D3D3D", "#AA3377", "#228833", "#B59A00", "#3FA9C9", "#7A5C2E", "#E8667A", "#7C7C9C")
"""The colours of settings that are compared, none of them that of a level. The first is that of the reference."""

PALETTE: Mapping[str, tuple[str, str]] = {
    "local": (BLUE, "#5CB3F0"),
    "global": (ORANGE, "#FF9A4D"),
    "others": (GREEN, "#45C9A2"),
    "ink": (INK, "#E9EAEC"),
    "muted": (MUTED, "#B4B8BE"),
    "faint": (FAINT, "#858B93"),
    "grid": (GRID, "#31363C"),
    "paper": (PAPER, "#15181C"),
    **{
        f"setting-{number}": pair
        for number, pair in enumerate(
            zip(
                SETTINGS,
                ("#D6D6D6", "#E388BB", "#62C272", "#DCC44A", "#74CDE6", "#C9A063", "#FF9BA8", "#AFAFCF"),
                strict=True,
            ),
            1,
        )
    },
}
"""Name -> colour on white and on dark pages. PNG files have the first; pages have both."""

_DPI = 150
_WIDTH = 6.4
LINE = 0.16
"""Height of a line of the subtitle, in inches."""


@contextmanager
def without_text_warnings() -> Iterator[None]:
    """Lets users choose names that are long, or of characters that the font of figures lacks.

    A PNG then shows boxes, or has little space for its axes. A page shows names in its own text.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tight layout not applied", category=UserWarning)
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font", category=UserWarning)
        yield


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with its panels in order, which `png` stores whole and `svg.panels` shows one by one.

    `has_named_rows`: names stand at the y axis, which pages have in their legend.
    """

    title: str
    subtitle: str
    figure: Figure
    grid: Sequence[Axes]
    has_named_rows: bool = False

    def png(self) -> bytes:
        """The bytes of the PNG with title, subtitle and legend."""
        return png(self.figure)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line over rounds with its band; `style` is `local`, `global`, `others`, or
    that with `bound` after it, `wide` marks hollow points."""

    label: str
    style: str
    rounds: Sequence[int]
    values: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]
    wide: Sequence[bool] = ()


STYLES: Mapping[str, Mapping[str, Any]] = {
    "local": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "global": {"color": ORANGE, "marker": "s", "linestyle": "-"},
    "others": {"color": GREEN, "marker": "^", "linestyle": "--"},
    # what a privacy guarantee leaves possible: of the same colour, without points
    "local bound": {"color": BLUE, "marker": "", "linestyle": (0, (1, 1))},
    "global bound": {"color": ORANGE, "marker": "", "linestyle": (0, (4, 1, 1, 1))},
}


def over_rounds(
    title: str,
    unit: str | Sequence[str],
    panels: Mapping[str, Sequence[Line]],
    subtitle: str,
    *,
    nulls: Sequence[float] = (),
    null_label: str = "without memorisation",
    zones: Mapping[str, SaturationZone] = MappingProxyType({}),
) -> Drawing:
    """One panel for each kind of audit example; bands are intervals, dotted lines the values without memorisation.

    `zones` are the saturated values of each panel, shaded where a value lies there.

    One unit is that of a common y axis; with one for each panel, each has its own axis.
    """
    units = [unit] if isinstance(unit, str) else unit
    sharey = len(units) == 1
    from matplotlib.ticker import MaxNLocator

    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    width = max(3.5 * columns + 0.6, _WIDTH)
    height = 2.6 * rows + 0.95 + LINE * len(break_lines(subtitle, width))
    figure, grid = figure_with(width, height, rows, columns, sharey=sharey)
    for axes, (name, lines) in zip(grid, panels.items(), strict=False):
        tidy(axes)
        name_panel(axes, name)
        for line in lines:
            style = STYLES[line.style]
            axes.fill_between(line.rounds, line.lows, line.highs, color=style["color"], alpha=0.17, linewidth=0)
            axes.plot(
                line.rounds, line.values, label=line.label, linewidth=1.8, markersize=4, markeredgewidth=0, **style
            )
            hollow = [i for i, wide in enumerate(line.wide) if wide]
            x, y = [line.rounds[i] for i in hollow], [line.values[i] for i in hollow]
            if hollow:
                axes.scatter(
                    x, y, s=22, marker=style["marker"], c="white", edgecolors=style["color"], linewidths=1.2, zorder=3
                )
        for null in nulls:
            axes.axhline(null, color=FAINT, linestyle=":", linewidth=1.3, label=null_label, zorder=1)
        shade_saturated(axes, zones.get(name, NOWHERE), y=[value for line in lines for value in line.values])
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for number, axes in enumerate(grid[::columns] if sharey else grid[: len(panels)]):
        axes.set_ylabel(short_label(units[0 if sharey else number]))
    finish(figure, title, subtitle, grid)
    return Drawing(title=title, subtitle=subtitle, figure=figure, grid=grid[: len(panels)])


def local_against_global(
    title: str,
    unit: str,
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    null: float,
    subtitle: str,
    *,
    zones: Mapping[str, SaturationZone] = MappingProxyType({}),
) -> Drawing:
    """One point for each audit example, one panel for each kind; on the diagonal aggregation has kept everything.

    `zones` are the saturated values of each kind, shaded where a value lies there.

    Points that coincide are drawn as one, larger; a key says how many. One colour, since colours mean levels.
    """
    panels = {kind: pair for kind, pair in pairs.items() if len(pair[0])}
    width = 3.4 * len(panels) + 0.8
    height = 4.6 + LINE * len(break_lines(subtitle, width))
    figure, grid = figure_with(width, height, 1, len(panels), sharey=True)
    everything = np.concatenate([np.asarray(values) for pair in panels.values() for values in pair])
    low, high = min(float(everything.min()), null), max(float(everything.max()), null)
    margin = 0.06 * ((high - low) or 1.0)
    max_count = 1
    for axes, (kind, pair) in zip(grid, panels.items(), strict=True):
        (x, y), counts = np.unique(np.array(pair), axis=1, return_counts=True)
        tidy(axes)
        axes.plot([low, high], [low, high], color=FAINT, linewidth=1, zorder=1)
        axes.axhline(null, color=FAINT, linestyle=":", linewidth=1, zorder=1)
        axes.axvline(null, color=FAINT, linestyle=":", linewidth=1, zorder=1)
        axes.scatter(x, y, s=_marker_areas(counts), zorder=3, **_POINT)
        max_count = max(max_count, int(counts.max()))
        name_panel(axes, f"{kind} (n = {len(pair[0])})")
        axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
        shade_saturated(axes, zones.get(kind, NOWHERE), x=pair[0], y=pair[1])
        axes.set_xlabel(short_label(f"local {unit}"))
    grid[0].set_ylabel(short_label(f"global {unit}"))
    if max_count > 1:
        for count in sorted({1, max(2, round(max_count**0.5)), max_count}):
            label = f"{count} example{'s' if count > 1 else ''}"
            grid[0].scatter([], [], s=_marker_areas(np.array(count)), label=label, **_POINT)
    finish(figure, title, subtitle, grid, foot=0.45)
    for axes in grid:  # only now: room is made for axes that fill their place
        axes.locator_params(nbins=5)
        axes.set_aspect("equal", anchor="NW")
    return Drawing(title=title, subtitle=subtitle, figure=figure, grid=grid)


_POINT: Mapping[str, Any] = {"c": INK, "marker": "o", "alpha": 0.55, "edgecolors": "white", "linewidths": 0.5}


def shade_saturated(axes: Axes, zone: SaturationZone, *, x: Sequence[float] = (), y: Sequence[float] = ()) -> None:
    """Shades what is saturated, on each axis that has values there. The limits of the axes stay as they are."""
    for values, span, limits in ((x, axes.axvspan, axes.get_xlim()), (y, axes.axhspan, axes.get_ylim())):
        if any(value >= zone.top for value in values):
            span(zone.top, max(limits[1], zone.top), **_SHADE)
        if any(value <= zone.bottom for value in values):
            span(min(limits[0], zone.bottom), zone.bottom, **_SHADE)


_SHADE: Mapping[str, Any] = {
    "color": FAINT, "alpha": 0.18, "linewidth": 0, "zorder": 0, "label": "saturated: no differences seen"
}  # fmt: skip


def _marker_areas(counts: NDArray[np.int_]) -> NDArray[np.float64]:
    """Areas of markers that stand for so many examples."""
    return np.asarray(24.0 * counts**0.6)


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One victim of a reconstruction: what was, if that is known, what came back, and the best guess without it."""

    original: NDArray[np.float32] | None
    reconstruction: NDArray[np.float32]
    prior: NDArray[np.float32]
    label: str
    caption: str
    draw: Callable[[Axes, NDArray[Any]], None]
    """How one of them is drawn, as its modality says."""
    pixels: Callable[[NDArray[Any]], NDArray[np.uint8] | None] = lambda values: None
    """The pixels of one of them, where its modality has any."""


def sheet(title: str, groups: Mapping[str, Sequence[ImageRow]], subtitle: str) -> bytes:
    """Rows are groups of victims (a view); each victim is a column of original, reconstruction and prior."""
    columns = max(len(group) for group in groups.values())
    width = max(1.02 * columns + 1.5, _WIDTH)
    over = LINE * (len(break_lines(subtitle, width)) - 1)
    lines = max(victim.caption.count("\n") for group in groups.values() for victim in group)
    band_height = 3.9 + LINE * lines
    height = band_height * len(groups) + 0.55 + over
    figure = new_figure(width, height)
    for band, (name, group) in enumerate(groups.items()):
        top = 1 - (1.15 + over + band_height * band) / height
        figure.text(
            0.12 / width, top + 0.5 / height, escape_mathematics(name), fontsize=10, weight="bold", color=INK, va="top"
        )
        grid = figure.add_gridspec(
            3,
            columns,
            left=1.3 / width,
            right=1 - 0.1 / width,
            top=top,
            bottom=top - 3.1 / height,
            wspace=0.08,
            hspace=0.08,
        )
        for column, victim in enumerate(group):
            parts = {
                "original": victim.original,
                "reconstruction": victim.reconstruction,
                "baseline guess": victim.prior,
            }
            for row, (part, image) in enumerate(parts.items()):
                if image is None:
                    continue
                axes = figure.add_subplot(grid[row, column])
                victim.draw(axes, image)
                if column == 0:
                    axes.set_ylabel(part, fontsize=8.5, color=INK, rotation=0, ha="right", va="center")
                if row == (victim.original is None):
                    axes.set_title(escape_mathematics(victim.label), fontsize=7, color=INK, pad=3)
                if row == 2:
                    axes.set_xlabel(escape_mathematics(victim.caption), fontsize=7.5, color=INK, labelpad=3)
    _head(figure, title, subtitle)
    return png(figure)


def new_figure(width: float, height: float) -> Figure:
    """A figure that no global state of matplotlib knows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def figure_with(width: float, height: float, rows: int, columns: int, *, sharey: bool) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of axes, row by row."""
    figure = new_figure(width, height)
    return figure, list(figure.subplots(rows, columns, sharey=sharey, squeeze=False).ravel())


def tidy(axes: Axes) -> None:
    """Quiet axes: no frame above and to the right, a faint horizontal grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, color=FAINT, labelcolor=INK)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


def _head(figure: Figure, title: str, subtitle: str) -> None:
    """The title and below it, smaller, what is shown, both at the upper left."""
    inch = 1 / figure.get_figheight()
    left_edge = 0.12 / figure.get_figwidth()
    figure.text(left_edge, 1 - 0.1 * inch, escape_mathematics(title), fontsize=12, weight="bold", color=INK, va="top")
    for number, line in enumerate(break_lines(subtitle, figure.get_figwidth())):
        figure.text(
            left_edge,
            1 - (0.34 + LINE * number) * inch,
            escape_mathematics(line),
            fontsize=8.5,
            color=MUTED,
            va="top",
        )


def break_lines(subtitle: str, width: float) -> list[str]:
    """The lines of a subtitle in a figure so many inches wide."""
    return textwrap.wrap(subtitle, int(14 * width))


def finish(
    figure: Figure, title: str, subtitle: str, grid: Sequence[Axes], foot: float = 0.3, columns: int | None = None,
    first: Sequence[str] = (),
) -> None:  # fmt: skip
    """Title, one legend for all panels with so many columns and some labels first, and the space for both."""
    _head(figure, title, subtitle)
    inch = 1 / figure.get_figheight()
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    handles = {label: handles[label] for label in [label for label in first if label in handles] + list(handles)}
    columns = min(len(handles), columns or int(figure.get_figwidth() / 1.3))
    if handles:
        foot += 0.2 * (math.ceil(len(handles) / columns) - 1)
        left_edge = 0.05 / figure.get_figwidth()
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (left_edge, 0), "borderaxespad": 0.3}
        figure.legend(list(handles.values()), list(handles), ncols=columns, frameon=False, fontsize=8.5, **place)
    head = 0.4 + LINE * len(break_lines(subtitle, figure.get_figwidth()))
    figure.tight_layout(rect=(0, (foot if handles else 0.1) * inch, 1, 1 - head * inch))
    # nothing is laid out again, for which `savefig` would draw everything twice
    figure.set_layout_engine()


def name_panel(axes: Axes, name: str, size: float = 10) -> None:
    """Gives a panel its title, shortened to its width; a page shows the whole name."""
    axes.set_label(name)
    axes.set_title(short_label(name), loc="left", fontsize=size, color=INK)


def short_label(text: str) -> str:
    """Text of a user that fits beside axes, on as many lines as it has."""
    return escape_mathematics("\n".join(shorten(line, _LONGEST_LABEL) for line in text.split("\n")))


_LONGEST_LABEL = 46
"""Characters of a line of a title or label."""


def escape_mathematics(text: str) -> str:
    """Text that matplotlib does not read as mathematics; what cannot be seen is written as an escape.

    >>> escape_mathematics("a$b\\x00")
    'a\\\\$b\\\\x00'
    """
    visible = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return visible.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """The bytes of the PNG, without the date and version that would make two runs differ."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
