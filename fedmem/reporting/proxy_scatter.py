"""Proxies against memorisation: one point for each example, with images of the extreme ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels
from fedmem.errors import shorten
from fedmem.reporting import drawing
from fedmem.reporting.cells import Value, number
from fedmem.reporting.example_browser import LONGEST, ImageDrawer, label_of
from fedmem.reporting.measures import label_title
from fedmem.reporting.proxy_section import value_of_side, variants_of
from fedmem.reporting.summary import Summary
from fedmem.reporting.text_sheets import escape_invisible
from fedmem.wording import client_text

MAX_PROXIES = 3
"""Proxies with a figure: those whose differences agree best with memorisation."""

SHOWN = 4
"""Examples in each row of images."""

_ALL = "all"
_MEMORISATION = "memorisation"
_BY_PROBABILITY = Labels.of(statistic="probability")
_LEVELS: Mapping[str, str] = {"local": "owner", "global": ""}
_SIDES: Mapping[str, str] = {"gain": "in − out", "in": "in"}
_MARKERS = "osv^DPX*"


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """An example at an end: what it is, its values, and its image as an address or its text."""

    label: str
    caption: str
    image: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ProxyScatter:
    """A proxy against memorisation.

    Attributes:
        name: Name of the file of its figure, without the ending.
        title: The proxy.
        drawing: A panel for each level, by the difference in − out and by the mean over runs with the example.
        caption: What it shows.
        extremes: Titles, each with its examples.
    """

    name: str
    title: str
    drawing: drawing.Drawing
    caption: str
    extremes: Sequence[tuple[str, Sequence[Extreme]]]


@dataclass(frozen=True, kw_only=True)
class _Proxy:
    """A proxy with the labels of one variant, and how much its difference agrees with memorisation at most."""

    measure: Measure
    labels: Labels
    size: float

    @property
    def title(self) -> str:
        """Its name with its labels."""
        return " ".join([self.measure.title, *(label_title(name, value) for name, value in self.labels.items)])


@dataclass(frozen=True, kw_only=True)
class _Points:
    """The examples with both values at one level: numbers (n,), memorisation (n,) and the proxy (n,)."""

    level: str
    side: str
    subjects: Sequence[int]
    memorisation: Sequence[float]
    proxy: Sequence[float]
    agreement: Value | None

    @property
    def title(self) -> str:
        """Level, variant and agreement."""
        if self.agreement is None:
            return f"{self.level}, {_SIDES[self.side]}"
        value, *ends = (number(end, 2) for end in (self.agreement.value, self.agreement.low, self.agreement.high))
        text = "undefined" if math.isnan(self.agreement.value) else value
        interval = "" if math.isnan(self.agreement.low) else f" [{', '.join(ends)}]"
        return f"{self.level}, {_SIDES[self.side]}: ρ {text}{interval}"


def proxy_scatters(summary: Summary) -> Iterator[ProxyScatter]:
    """A figure for each of the best proxies; nothing where `agreement` was not measured."""
    drawer = ImageDrawer(summary.run.names.modality)
    for place, proxy in enumerate(_best_proxies(summary), 1):
        points = [
            found
            for side in _SIDES
            for level in _LEVELS
            if (found := _points(summary, proxy, level, side)) is not None and found.subjects
        ]
        if not points:
            continue
        caption = (
            f"{proxy.title} against memorisation by probability, one point for each example. The interval of ρ is "
            "95 %. ρ is the rank correlation over all kinds, from runs that do not overlap and corrected for noise. "
            "Points share the noise of their runs, so that they may look more or less related than ρ says"
        )
        title = f"{proxy.title} against memorisation"
        yield ProxyScatter(
            name=f"proxy_{place}",
            title=proxy.title,
            drawing=_draw(title, proxy.title, points, summary, caption),
            caption=caption,
            extremes=list(_extremes(summary, proxy, points[0], drawer)),
        )


def _best_proxies(summary: Summary) -> list[_Proxy]:
    """The proxies whose differences agree best, one variant of each measure."""
    about = _ALL if len(summary.kinds) > 1 else next(iter(summary.kinds), "")
    wanted = Labels.of(target=_MEMORISATION, statistic="gain")
    sizes: dict[tuple[str, str], float] = {}
    for metric in ("agreement", "agreement_split"):  # the second where the first is undefined
        for _, subject, labels, value in summary.entries(metric, wanted):
            is_main = subject == about and not {"given", "contrast"} & set(labels)
            if is_main and labels.get("place") != "others" and not math.isnan(value.value):
                key = labels.text("of"), labels.text("options")
                sizes[key] = max(sizes.get(key, 0.0), abs(value.value))
        if sizes:
            break
    best: dict[str, _Proxy] = {}
    for (name, options), size in sorted(sizes.items(), key=lambda item: -item[1]):
        measure = summary.known_measures.get(name)
        variants = variants_of(summary, measure) if measure is not None and measure.section == "proxies" else []
        for labels in variants:
            if measure is not None and name not in best and str(labels) == options:
                best[name] = _Proxy(measure=measure, labels=labels, size=size)
    return list(best.values())[:MAX_PROXIES]


def _points(summary: Summary, proxy: _Proxy, level: str, side: str) -> _Points | None:
    place = _LEVELS[level] or None
    labels = proxy.labels.plus(place=place)
    rows = []
    for subject in summary.run.audit["subject"].tolist():
        memorised = summary.value(_MEMORISATION, level, str(subject), _BY_PROBABILITY.plus(place=place))
        if side == "gain":
            value = summary.value(proxy.measure.gain, level, str(subject), labels)
        else:
            value = value_of_side(summary, proxy.measure, level, str(subject), labels, side)
        if memorised and value and math.isfinite(memorised.value) and math.isfinite(value.value):
            rows.append((int(subject), memorised.value, value.value))
    if not rows:
        return None
    subjects, memorisation, values = zip(*rows, strict=True)
    about = _ALL if len(summary.kinds) > 1 else next(iter(summary.kinds), "")
    options = str(proxy.labels) or None
    of = Labels.of(of=proxy.measure.name, statistic=side, options=options, target=_MEMORISATION, place=place)
    agreement = summary.value("agreement", level, about, of)
    return _Points(
        level=level, side=side, subjects=subjects, memorisation=memorisation, proxy=values, agreement=agreement
    )


def _draw(title: str, proxy: str, points: Sequence[_Points], summary: Summary, caption: str) -> drawing.Drawing:
    """A panel for each level and variant; kinds differ in colour and marker."""
    kind_of = dict(zip(summary.run.audit["subject"].tolist(), summary.run.audit["kind"].tolist(), strict=True))
    columns = min(len(points), 2)
    width = 3.5 * columns + 0.6
    rows = math.ceil(len(points) / columns)
    height = 3.0 * rows + 0.95 + drawing.LINE * len(drawing.break_lines(caption, width))
    figure, grid = drawing.figure_with(width, height, rows, columns, sharey=False)
    for axes, one in zip(grid, points, strict=False):
        drawing.tidy(axes)
        axes.axhline(0.0, color=drawing.FAINT, linestyle=":", linewidth=1.3, label="without memorisation", zorder=1)
        for place, kind in enumerate(summary.kinds):
            chosen = [i for i, subject in enumerate(one.subjects) if kind_of[subject] == kind]
            axes.plot(
                [one.proxy[i] for i in chosen],
                [one.memorisation[i] for i in chosen],
                linestyle="none",
                marker=_MARKERS[place % len(_MARKERS)],
                color=drawing.SETTINGS[place % len(drawing.SETTINGS)],
                markersize=4.5,
                markeredgewidth=0,
                alpha=0.75,
                label=kind,
            )
        axes.set(xlabel=drawing.short_label(f"{proxy}, {_SIDES[one.side]}"), ylabel="memorisation")
        drawing.name_panel(axes, one.title)
    for axes in grid[len(points) :]:
        axes.set_visible(False)
    drawing.finish(figure, title, caption, grid)
    return drawing.Drawing(title=title, subtitle=caption, figure=figure, grid=grid[: len(points)])


def _extremes(
    summary: Summary, proxy: _Proxy, points: _Points, drawer: ImageDrawer
) -> Iterator[tuple[str, Sequence[Extreme]]]:
    """The examples at three ends of the ranks of both; the proxy is turned where it falls with memorisation."""
    from scipy.stats import rankdata, spearmanr

    memory, values = np.array(points.memorisation), np.array(points.proxy)
    known = points.agreement is not None and not math.isnan(points.agreement.value)
    rho = points.agreement.value if points.agreement is not None and known else spearmanr(memory, values).statistic
    first, second = rankdata(memory), rankdata(values if not rho < 0 else -values)
    for title, score in (
        ("Memorised, as the proxy says", first + second),
        ("Memorised more than the proxy says", first - second),
        ("Memorised less than the proxy says", second - first),
    ):
        order = np.lexsort((np.array(points.subjects), -score))[:SHOWN]
        examples = [_extreme(summary, proxy, points, int(i), drawer) for i in order]
        yield f"{title} ({points.level}, {_SIDES[points.side]})", examples


def _extreme(summary: Summary, proxy: _Proxy, points: _Points, place: int, drawer: ImageDrawer) -> Extreme:
    run, subject = summary.run, points.subjects[place]
    fact: Any = run.audit.set_index("subject").loc[subject]
    text = shorten(escape_invisible(fact["text"]), LONGEST)
    values = (
        f"memorisation {number(points.memorisation[place], 2)}, "
        f"{proxy.measure.title} {_SIDES[points.side]}: {number(points.proxy[place], proxy.measure.digits)}"
    )
    facts = filter(None, (label_of(run, fact), client_text(int(fact["owner"]), run.client_names), values))
    return Extreme(
        label=f"{fact['kind']} #{subject}",
        caption=", ".join(facts),
        image="" if text else drawer.draw(fact["inputs"]),
        text=text,
    )
