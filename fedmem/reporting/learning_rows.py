"""The rows of a table that say whether models have learned: the best constant answer, and their accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fedmem.estimation.learning import Learning
from fedmem.reporting.cells import p_text
from fedmem.reporting.summary import Summary
from fedmem.wording import class_text

Block = tuple[str, tuple[tuple[str, ...], ...]]


def learning_blocks(summary: Summary) -> Iterator[Block]:
    """The share that the most frequent answer alone gets right, and the p that the models are no better."""
    by_level = {learning.level: learning for learning in summary.learnings if learning.on}
    if not by_level:
        return
    sides = [by_level.get(level) for level in ("local", "global")]
    first = next(iter(by_level.values()))
    held_out = "test" if first.on == "test" else "held-out"
    rows = (
        (f"{_answer(summary, first)}", str(first.examples), *(f"{s.constant:.3f}" if s else "–" for s in sides)),
        ("p that the models are no better", str(first.examples), *(_p(side.p if side else None) for side in sides)),
        ("the same p, over runs", str(first.examples), *(_p(side.p_of_runs if side else None) for side in sides)),
    )
    yield f"accuracy of the most frequent answer; n counts {held_out} examples", rows


def learning_notes(summary: Summary) -> Iterator[str]:
    """How this is decided, and where it cannot be."""
    for learning in summary.learnings:
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
