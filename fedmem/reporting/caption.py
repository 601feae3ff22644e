"""Explain the columns and rows of the table of a run, only those that it has."""

from __future__ import annotations

from collections.abc import Sequence

from fedmem.reporting.cells import Section
from fedmem.results.read import Run

RELEASED = ", released"
"""How the label of a row about the last aggregate ends."""

_LEVELS = {
    "local": "local: the model of the client that holds the example, after its own training and before aggregation",
    "global": "global: the aggregate of the same round",
}

_OF_BOTH = (
    "Each example is read at the last observed round in which its owning client took part, so that global is the "
    "aggregate of that round"
)


def caption_of(run: Run, table_sections: Sequence[Section]) -> str:
    """The caption of the table: an explanation of the columns that this run has."""
    observed = [level for level in _LEVELS if level in run.scenario.get("observe", {}).get("levels", _LEVELS)]
    sentences = ["; ".join(_LEVELS[level] for level in observed)] if len(observed) > 1 else []
    sentences += [_LEVELS[level].replace(" of the same round", "") for level in observed] if len(observed) == 1 else []
    labels = [row[0] for section in table_sections for _, rows in section.blocks for row in rows]
    if len(observed) > 1:
        is_released = any(label.endswith(RELEASED) for label in labels)
        sentences.append(_OF_BOTH + "; released is the last aggregate, read on all examples" * is_released)
    has_secrets = any(section.title == "EXTRACTION" for section in table_sections)
    counted = "audit examples" + " (in EXTRACTION, pairs of run and secret)" * has_secrets
    sentences.append(
        f"In brackets 95 % intervals; n counts {counted}, and the width depends on the number of runs as well"
    )
    return ". ".join(sentences) + "."
