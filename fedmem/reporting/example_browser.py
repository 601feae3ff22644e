"""Every audit example of a run for its page: image or text, owning client, and scores at both levels."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.measurement import Level
from fedmem.errors import FedmemError, shorten
from fedmem.reporting.cells import Value
from fedmem.reporting.drawing import ImageRow
from fedmem.reporting.interval_bars import interval_bars
from fedmem.reporting.rendering import data_uri
from fedmem.reporting.text_sheets import escape_invisible
from fedmem.results.read import Run
from fedmem.results.top import LEVELS, Choice, Ranking, notes, rank_examples, single_measures
from fedmem.wording import class_text, client_text

if TYPE_CHECKING:
    from fedmem.modalities.modality import Modality

MAX_EXAMPLES = 400
"""Examples on a page, the most memorised ones first. This is the only place that says how many."""

FIRST = 10
"""Examples that are shown at once; the others are a click away."""

LONGEST = 600
"""Characters of an example in writing."""

_SHOWN: tuple[Level, ...] = ("local", "global")

REAL_ROWS = "This section shows examples themselves, among them real rows of the data: share the page accordingly."


@dataclass(frozen=True, kw_only=True)
class ShownExample:
    """One row of the browser. `scores` are texts by level; `bars` is SVG that needs no escaping."""

    place: int
    rank: str
    subject: int
    kind: str
    owner: str
    label: str
    text: str
    image: str
    scores: Mapping[str, str]
    numbers: Mapping[str, str]
    p: Sequence[tuple[str, str]]
    bars: str


@dataclass(frozen=True, kw_only=True)
class Browser:
    """The examples of a page.

    Attributes:
        shown: At most `MAX_EXAMPLES`, the most memorised first.
        total: How many audit examples the run has.
        measure: What the scores measure; empty where no single example has a score.
        level: The level whose scores decide the order.
        notes: How to read the scores.
        kinds: Kinds of the shown examples.
        owners: Owners of the shown examples.
    """

    shown: Sequence[ShownExample]
    total: int
    measure: str = ""
    level: str = ""
    notes: Sequence[str] = ()
    kinds: Sequence[str] = ()
    owners: Sequence[str] = ()
    first: int = FIRST


def browse(run: Run, max_examples: int = MAX_EXAMPLES) -> Browser:
    """The examples of a run, those without a score last. Sensitive cells stay hidden, as `Run.audit` hides them."""
    audit = run.audit
    rankings = _rankings(run, max_examples)
    first = next(iter(rankings.values()), None)
    order = [int(row["subject"]) for row in _records(first)] if first else []
    scored = set(order)
    order += [subject for subject in audit["subject"].tolist() if subject not in scored]
    facts = audit.set_index("subject")
    rows = {level: {int(row["subject"]): row for row in _records(ranking)} for level, ranking in rankings.items()}
    head = _head(run, first)
    drawer = ImageDrawer(run.names.modality)
    span = _span(first, rows)
    shown = []
    for place, subject in enumerate(order[:max_examples]):
        fact: Any = facts.loc[subject]
        values = {level: _value((head, *rows.values()), level, subject) for level in _SHOWN}
        row = rows[first.level].get(subject) if first else None
        text = shorten(escape_invisible(fact["text"]), LONGEST)
        shown.append(
            ShownExample(
                place=place,
                rank=f"{row['rank']}{'=' if row['tied'] else ''}" if row else "",
                subject=subject,
                kind=str(fact["kind"]),
                owner=client_text(int(fact["owner"]), run.client_names),
                label=label_of(run, fact),
                text=text,
                image="" if text else drawer.draw(fact["inputs"]),
                scores={level: _text(first, value) for level, value in values.items()},
                numbers=_numbers(values),
                p=[(level, text) for level in _SHOWN if (text := _p_text(rows, level, subject))],
                bars=_bars(values, span, first),
            )
        )
    title = first.name.replace("_", " ") if first else ""
    return Browser(
        shown=shown,
        total=len(audit),
        measure=f"{title}{', ' * bool(first.measure.unit_text)}{first.measure.unit_text}" if first else "",
        level=first.level if first else "",
        notes=(*notes(first), *([_head_note(run)] if head else [])) if first else (),
        kinds=tuple(dict.fromkeys(example.kind for example in shown)),
        owners=tuple(sorted({example.owner for example in shown}, key=lambda name: (len(name), name))),
    )


def _rankings(run: Run, max_examples: int) -> dict[Level, Ranking]:
    """The most memorised examples at each level that has scores; the first decides the order of the page."""
    rankings: dict[Level, Ranking] = {}
    if not single_measures(run):
        return rankings
    for level in LEVELS:
        try:
            rankings[level] = rank_examples(run, Choice(n=max_examples, level=level))
        except FedmemError:
            continue  # this level has no scores
    return rankings


def _head(run: Run, first: Ranking | None) -> dict[int, dict[str, Any]]:
    """The first examples with the intervals that allow for their selection; empty where all are among the first."""
    if first is None or first.candidates <= FIRST:
        return {}
    ranking = rank_examples(run, Choice(n=FIRST, level=first.level))
    return {int(row["subject"]): row for row in _records(ranking)}


def _head_note(run: Run) -> str:
    return (
        f"The first {FIRST} have the wider intervals of `fedmem top {run.id} -n {FIRST}`, which allow for their "
        "selection from all examples."
    )


def _records(ranking: Ranking) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in ranking.frame.to_dict("records")]


def _value(rankings: Sequence[Mapping[int, Mapping[str, Any]]], level: str, subject: int) -> Value | None:
    """The score at a level, from the first ranking that shows the example."""
    for of_level in rankings:
        row = of_level.get(subject)
        if row is not None and not math.isnan(row[level]):
            low, high, n = (row[f"{level}_{part}"] for part in ("low", "high", "n"))
            return Value(value=row[level], low=low, high=high, n=n)
    return None


def _text(ranking: Ranking | None, value: Value | None) -> str:
    if ranking is None or value is None:
        return "not measured"
    return value.text(max(2, ranking.measure.digits - 1))


def _bars(values: Mapping[Level, Value | None], span: tuple[float, float], ranking: Ranking | None) -> str:
    """The scores as bars; nothing without any."""
    present = {str(level): value for level, value in values.items() if value is not None}
    return interval_bars(present, span, ranking.measure.null) if ranking and present else ""


def _numbers(values: Mapping[Level, Value | None]) -> dict[str, str]:
    """The numbers by which the page sorts."""
    numbers: dict[str, str] = {level: f"{value.value:.6g}" for level, value in values.items() if value}
    local, whole = values["local"], values["global"]
    if local and whole:
        numbers["gap"] = f"{local.value - whole.value:.6g}"
    return numbers


def _p_text(rows: Mapping[Level, Mapping[int, Mapping[str, Any]]], level: Level, subject: int) -> str:
    """p of no memorisation at a level, adjusted for the number of examples, marked where it is significant."""
    row = rows.get(level, {}).get(subject)
    if row is None or math.isnan(row["p"]):
        return ""
    return f"{row['p']:.2g}, adjusted {row['p_adjusted']:.2g}{' *' * bool(row['significant'])}"


def label_of(run: Run, fact: Any) -> str:
    """The label, and the true one where that is another."""
    names = run.names
    if names.modality is not None and names.modality.tokens:
        return ""
    label, true = int(fact["target"]), int(fact["true_target"])
    was = f" (true label {class_text(true, names.class_names)})" if true not in (-1, label) else ""
    return f"label {class_text(label, names.class_names)}{was}"


def _span(ranking: Ranking | None, rows: Mapping[Level, Mapping[int, Mapping[str, Any]]]) -> tuple[float, float]:
    """The values at the ends of the bars: those of the measure, else the smallest and largest that are shown."""
    if ranking is None:
        return 0.0, 1.0
    ends = ranking.measure.range
    if all(map(math.isfinite, ends)):
        return ends
    values = [row[level] for of_level in rows.values() for row in of_level.values() for level in ("local", "global")]
    finite = [value for value in values if math.isfinite(value)]
    null = ranking.measure.null
    finite += [] if math.isnan(null) else [null]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


@dataclass
class ImageDrawer:
    """Draws examples as small images, each as an address for a page."""

    modality: Modality | None
    _axes: list[Any] = field(default_factory=list)

    def draw(self, inputs: Any) -> str:
        """An empty text where the modality is not known here."""
        if self.modality is None:
            return ""
        pixels = self.modality.pixels(inputs)
        return data_uri(pixel_png(pixels) if pixels is not None else thumbnail(self.modality.draw, inputs, self._axes))


def pixel_png(pixels: Any) -> bytes:
    """A PNG of (height, width) or (height, width, 3) whole numbers from 0 to 255."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def thumbnail(draw: Callable[[Any, Any], None], inputs: Any, axes: list[Any]) -> bytes:
    """A small PNG of one example as its modality draws it; `axes` holds the axes for the next one."""
    from matplotlib.figure import Figure

    if not axes:
        axes.append(Figure(figsize=(0.9, 0.9), dpi=80).add_axes((0.02, 0.02, 0.96, 0.96)))
    axes[0].clear()
    draw(axes[0], inputs)
    buffer = io.BytesIO()
    axes[0].figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def victims(groups: Mapping[str, Sequence[ImageRow]]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Sheets of reconstructions for a page: each victim with its images as addresses."""
    axes: list[Any] = []
    for name, group in groups.items():
        rows = []
        for victim in group:
            parts = {
                "original": victim.original,
                "reconstruction": victim.reconstruction,
                "baseline guess": victim.prior,
            }
            rows.append(
                {
                    "label": victim.label.replace("\n", " "),
                    "caption": victim.caption.replace("\n", ", "),
                    **{
                        part: "" if image is None else data_uri(_image(victim, image, axes))
                        for part, image in parts.items()
                    },
                }
            )
        yield name, rows


def _image(victim: ImageRow, image: Any, axes: list[Any]) -> bytes:
    pixels = victim.pixels(image)
    return pixel_png(pixels) if pixels is not None else thumbnail(victim.draw, image, axes)
