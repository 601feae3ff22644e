"""The rows of a table that say whether models have learned: the best constant answer, and their accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_LABELS, Level
from fedmem.estimation.learning import METRIC, TEST_LOSS, Learning
from fedmem.reporting.cells import p_text
from fedmem.reporting.summary import Summary
from fedmem.wording import class_text

Block = tuple[str, tuple[tuple[str, ...], ...]]

LEVELS: tuple[Level, ...] = ("local", "global")


def defined_utility(summary: Summary, measure: Measure) -> Measure:
    """The measure; for a test accuracy that is undefined the test loss, as of models of densities."""
    instead = summary.known_measures.get(TEST_LOSS)
    if measure.name != METRIC or instead is None or _is_defined(summary, measure) or not _is_defined(summary, instead):
        return measure
    return instead


def _is_defined(summary: Summary, measure: Measure) -> bool:
    values = [summary.value(measure.name, level, "", NO_LABELS) for level in LEVELS]
    return any(value is not None and not math.isnan(value.value) for value in values)


def learning_blocks(summary: Summary) -> Iterator[Block]:
    """The share that the most frequent answer alone gets right, and the p that the models are no better."""
    by_level = {learning.level: learning for learning in summary.learnings if learning.on}
    if not by_level:
        return
    sides = [by_level.get(level) for level in LEVELS]
    first = next(iter(by_level.values()))
    held_out = "test" if first.on == "test" else "held-out"
    if first.densities:
        yield _densities(first, by_level, held_out)
        return
    rows = (
        (f"{_answer(summary, first)}", str(first.examples), *(f"{s.constant:.3f}" if s else "–" for s in sides)),
        ("p that the models are no better", str(first.examples), *(_p(side.p if side else None) for side in sides)),
        ("the same p, over runs", str(first.examples), *(_p(side.p_of_runs if side else None) for side in sides)),
    )
    yield f"accuracy of the most frequent answer; n counts {held_out} examples", rows


def _densities(first: Learning, by_level: Mapping[Level, Learning], held_out: str) -> Block:
    """The log-density of the models, and those of distributions that know nothing about images."""
    sides = [by_level.get(level) for level in LEVELS]
    count = str(first.examples)
    means = (_nats(side.accuracy, side.low, side.high) if side else "–" for side in sides)
    rows = [
        ("log-density of the models", count, *means),
        ("one distribution for all pixels", count, *(_nats(side.constant) if side else "–" for side in sides)),
        ("p that the models are no better", count, *(_p(side.p if side else None) for side in sides)),
        ("the same p, over runs", count, *(_p(side.p_of_runs if side else None) for side in sides)),
    ]
    if not math.isnan(first.independent):
        rows.insert(2, ("independent pixels", count, *(_nats(side.independent) if side else "–" for side in sides)))
    return f"mean log-density in nats; n counts {held_out} examples", tuple(rows)


def _nats(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """The value, and its interval where it has one."""
    text = f"{value:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")
    return text.replace("-", "−")


def learning_notes(summary: Summary) -> Iterator[str]:
    """How this is decided, and where it cannot be."""
    for learning in summary.learnings:
        if learning.densities:
            yield from _density_notes(learning)
            continue
        if learning.verdict == "fitted":
            yield (
                f"The {learning.level} models are no better than the most frequent answer on held-out examples. On "
                "the audit examples that they were trained on, they are: they fit these without generalising."
            )
        if learning.verdict == "undefined":
            yield (
                f"Whether the {learning.level} models have learnt is undefined: there are too few held-out examples "
                "with another label than the most frequent one."
            )


def _density_notes(learning: Learning) -> Iterator[str]:
    """Whether the comparison is undefined, and whether pixels depend on each other in the model."""
    if learning.verdict == "undefined":
        yield (
            f"Whether the {learning.level} models have learnt is undefined: there are fewer than two held-out "
            "examples, or all their pixels are equal."
        )
    if learning.verdict == "learnt" and learning.accuracy < learning.independent:
        yield (
            f"The {learning.level} models are not shown to know more than the frequency of each pixel: independent "
            "pixels are better."
        )


def _answer(summary: Summary, learning: Learning) -> str:
    """The constant answer in words."""
    modality = summary.run.names.modality
    if modality is not None and modality.tokens:
        return f"always the token {modality.decode(np.array([learning.answer]))!r}"
    return f"always {class_text(learning.answer, summary.run.class_names)}"


def _p(p: float | None) -> str:
    if p is None or math.isnan(p):
        return "–"
    return p_text(p, math.nan) if p >= _TINY else f"< {_TINY:g}"


_TINY = 1e-4
