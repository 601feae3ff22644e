"""What a reader sees of a figure: its texts with their boxes, its intervals, and the looks of its legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from fedmem.contracts.arrays import FloatArray
from fedmem.studies.experiment_figure import LEVEL_NAMES

PAGE_PIXELS = 700
POSSIBLE = {
    "AUC": (0.0, 1.0),
    "share": (0.0, 1.0),
    "accuracy": (0.0, 1.0),
    "memorisation": (-1.0, 1.0),
    "exposure": (0.0, np.inf),
}
"""A word of a panel -> the possible values of what it shows; the first word that a text has decides."""


def visible_texts(figure: Figure) -> list[Text]:
    """Every text that is drawn, numbers of axes included."""
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    texts = [*figure.texts, *legends]
    for axes in figure.axes:
        if axes.get_visible():
            inside = [child for child in axes.get_children() if isinstance(child, Text)]
            texts += [*inside, axes.xaxis.label, axes.yaxis.label, *tick_texts(axes.xaxis), *tick_texts(axes.yaxis)]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def tick_texts(axis: Axis) -> Iterator[Text]:
    """The numbers and names of an axis that lie between its ends."""
    low, high = sorted(axis.get_view_interval())
    for tick in axis.get_major_ticks():
        if low - 1e-9 <= tick.get_loc() <= high + 1e-9:
            yield tick.label1


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Each text with its box in pixels."""
    canvas: Any = figure.canvas
    canvas.draw()
    renderer = canvas.get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in visible_texts(figure)]


def overlapping(drawn: Sequence[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a pixel in both directions."""
    pairs = []
    for (first, box), (second, other) in combinations(drawn, 2):
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        if width > 1 and height > 1:
            pairs.append((first, second))
    return pairs


def outside(drawn: Sequence[tuple[str, Bbox]], figure: Figure) -> list[str]:
    """Texts that do not lie wholly in the figure."""
    page = figure.bbox
    return [text for text, box in drawn if box.x0 < page.x0 or box.y0 < page.y0 or box.x1 > page.x1 or box.y1 > page.y1]


def smallest_pixels(figure: Figure) -> float:
    """Size of the smallest font, in pixels, where the figure is shown at 700 pixels."""
    points = min(float(text.get_fontsize()) for text in visible_texts(figure))
    return float(points / 72 * PAGE_PIXELS / figure.get_figwidth())


def impossible_intervals(figure: Figure) -> list[tuple[str, float]]:
    """Ends of error bars and bands outside the possible values of what their panel shows, by the words of the panel."""
    wrong = []
    for axes in filter(Axes.get_visible, figure.axes):
        title = axes.get_title(loc="left")
        for is_across, label in ((True, axes.get_xlabel()), (False, axes.get_ylabel())):
            words = label if range_of(label) else title
            low, high = range_of(words) or (-np.inf, np.inf)
            wrong += [(words, end) for end in interval_ends(axes, is_across) if not low - 1e-9 <= end <= high + 1e-9]
    return wrong


def range_of(words: str) -> tuple[float, float] | None:
    """The possible values of what a text names, if it names a measure; differences have others."""
    if "difference" in words or "removal" in words or "worth" in words:
        return None
    return next((ends for word, ends in POSSIBLE.items() if word in words), None)


def interval_ends(axes: Axes, is_across: bool) -> Iterator[float]:
    """The ends of all error bars in one direction; bands are upright."""
    direction = 0 if is_across else 1
    for lines in axes.collections:
        if isinstance(lines, LineCollection):
            for segment in lines.get_segments():
                if np.ptp(np.asarray(segment)[:, direction]) > 0:
                    yield from np.asarray(segment)[:, direction]
        elif isinstance(lines, FillBetweenPolyCollection) and not is_across:
            for path in lines.get_paths():
                yield from np.asarray(path.vertices)[:, 1]


def points_of(axes: Axes) -> Iterator[tuple[str, FloatArray]]:
    """Label and (2, n) coordinates of all points that stand for a level: bars and lines that name one."""
    bars = {str(bar.get_label()): bar.lines[0] for bar in axes.containers if isinstance(bar, ErrorbarContainer)}
    lines = {str(line.get_label()): line for line in axes.lines}
    for label, line in [*bars.items(), *lines.items()]:
        if label in LEVEL_NAMES.values():
            yield label, np.asarray(line.get_data(), dtype=np.float64)


def legend_looks(figure: Figure) -> dict[str, tuple[object, object]]:
    """Label -> colour and marker of all that a legend could name."""
    looks: dict[str, tuple[object, object]] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            line = handle[0] if isinstance(handle, tuple) else handle
            if isinstance(line, Line2D):
                looks[str(label)] = (line.get_color(), line.get_marker())
    return looks
