"""Figures of experiments: one style, drawn from the tables that lie beside them and from nothing else.

All figures are `WIDTH` inches wide, so that each text is readable where a page shows them at 700 pixels. The owning
client is always blue with circles, other clients are green with triangles, the aggregate is orange with squares. What
else is compared has the colours of settings.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.reporting import drawing
from fedmem.reporting.measures import shipped_measures

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2
"""Inches. A text of 8 points then has 10.8 pixels on a page that is 700 pixels wide."""

LEVEL_NAMES: Mapping[str, str] = {
    "local": "owning client (local)",
    "others": "other clients",
    "global": "aggregate (global)",
}
"""Place of a measurement -> its name in every legend, in the order of legends."""

INTERVALS = "Bars: 95 % intervals over seeds, cut at the ends of the possible range"
"""Part of a subtitle."""

_COLOURS = 64
_KEY = "Drawn-From"


@dataclass(frozen=True, kw_only=True)
class TableFigure:
    """A figure that is drawn from committed tables.

    Attributes:
        name: Name of its file, without `.png`.
        tables: Names of its tables in the same folder, without `.csv`: the arguments of `draw`.
        draw: Draws the figure from these tables.
    """

    name: str
    tables: tuple[str, ...]
    draw: Callable[..., Figure]

    def figure(self, folder: Path) -> Figure:
        """The figure of the tables in a folder."""
        import pandas as pd

        return self.draw(*(pd.read_csv(folder / f"{name}.csv") for name in self.tables))

    def write(self, folder: Path) -> Path:
        """Draw the tables of a folder, and return the path of the PNG beside them. Equal tables give equal bytes."""
        figure, path = self.figure(folder), folder / f"{self.name}.png"
        path.write_bytes(small_png(figure, self.source(folder, figure)))
        return path

    def source(self, folder: Path, figure: Figure) -> str:
        """The checksum of the tables and of the words in the figure, which the PNG stores."""
        checksum = hashlib.sha256()
        for name in self.tables:
            checksum.update((folder / f"{name}.csv").read_bytes())
        checksum.update("\n".join(words_of(figure)).encode())
        return checksum.hexdigest()

    def is_current(self, folder: Path) -> bool:
        """Whether the PNG in a folder was drawn from the tables and with the words of today."""
        path = folder / f"{self.name}.png"
        return path.exists() and stored_source(path) == self.source(folder, self.figure(folder))


def page_panels(
    height: float, rows: int, columns: int, *, heights: Sequence[float] | None = None, **options: Any
) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure of `WIDTH` and its panels, row by row.

    Args:
        height: Inches.
        rows: Number of rows of panels.
        columns: Number of panels in a row.
        heights: Relative heights of the rows.
        options: More options of `Figure.subplots`, such as `sharey`.
    """
    figure = drawing.new_figure(WIDTH, height)
    ratios = None if heights is None else {"height_ratios": list(heights)}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=ratios, **options)
    for axes in grid.flat:
        drawing.tidy(axes)
    return figure, [list(line) for line in grid]


def possible_range(metric: str, references: float = math.inf) -> tuple[float, float]:
    """Smallest and largest possible value of a measure of the catalogue.

    Args:
        metric: Name of the measure.
        references: For exposure, the number of references; its largest value is log2(references + 1) bits.

    Examples:
        >>> possible_range("auc"), possible_range("memorisation"), possible_range("exposure", 1023)
        ((0.0, 1.0), (-1.0, 1.0), (0.0, 10.0))
    """
    low, high = shipped_measures()[metric].range
    return (low, math.log2(references + 1)) if metric == "exposure" else (low, high)


def interval_bars(
    value: pd.Series, low: pd.Series, high: pd.Series, possible: tuple[float, float] = (-math.inf, math.inf)
) -> FloatArray:
    """(2, n) distances from values to both ends of their intervals, 0 where there is no interval.

    Student's interval of a share may exceed the possible range. What exceeds it is not drawn: no value can lie there.
    """
    ends = np.stack([value - low.clip(lower=possible[0]), high.clip(upper=possible[1]) - value]).astype(np.float64)
    return np.where(np.isnan(ends), 0.0, np.maximum(ends, 0.0))


def level_style(place: str, **changes: Any) -> dict[str, Any]:
    """How points of the owning client (`local`), of other clients (`others`) and of the aggregate (`global`) look."""
    look = {key: drawing.STYLES[place][key] for key in ("color", "marker")}
    return {**look, "linestyle": "none", "linewidth": 1.2, "markersize": 4.5, "label": LEVEL_NAMES[place], **changes}


def setting_style(number: int, **changes: Any) -> dict[str, Any]:
    """How points of the n-th setting look that is compared, none of them like a level."""
    look = {"color": drawing.SETTINGS[number], "marker": "oDv^PX*h"[number]}
    return {**look, "linestyle": "none", "linewidth": 1.2, "markersize": 4.5, **changes}


def draw_null(axes: Axes, value: float, *, across: bool, label: str = "without memorisation") -> None:
    """A dotted line at the value without memorisation: upright where `across`, as values then run across."""
    line = axes.axvline if across else axes.axhline
    line(value, color=drawing.MUTED, linestyle=":", linewidth=1.3, zorder=1, label=label)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names of rows from top to bottom; the row of a name has its place in the list as height."""
    axes.set_yticks(range(len(names)), [drawing.escape_mathematics(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def finish_page(
    figure: Figure,
    title: str,
    subtitle: str,
    grid: Iterable[Iterable[Axes]],
    *,
    columns: int = 4,
    first: Sequence[str] = (),
) -> Figure:
    """Title, subtitle, one legend for all panels with so many columns, and the space for them.

    The legend begins with the labels of `first`, or with those of levels.
    """
    panels = [axes for line in grid for axes in line if axes.get_visible()]
    drawing.finish(figure, title, subtitle, panels, columns=columns, first=first or list(LEVEL_NAMES.values()))
    return figure


def words_of(figure: Figure) -> list[str]:
    """The words of a figure: title, subtitle, names of panels and axes, and legend, but no numbers of axes."""
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    words = [text.get_text() for text in texts]
    for axes in figure.axes:
        words += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        words += [text.get_text() for text in axes.texts]
    return [word for word in words if word]


def small_png(figure: Figure, source: str = "") -> bytes:
    """The bytes of a PNG of at most 64 colours, with the checksum of its source."""
    from PIL import Image, PngImagePlugin

    with Image.open(io.BytesIO(drawing.png(figure))) as image:
        few = image.convert("RGB").quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    notes = PngImagePlugin.PngInfo()
    notes.add_text(_KEY, source)
    buffer = io.BytesIO()
    few.save(buffer, format="PNG", optimize=True, pnginfo=notes)
    return buffer.getvalue()


def stored_source(path: Path) -> str:
    """The checksum that a PNG stores, empty if it has none."""
    from PIL import Image

    with Image.open(path) as image:
        return str(image.info.get(_KEY, ""))
