"""Reconstructed texts and the true ones side by side, for the page of a run."""

from __future__ import annotations

import math

from fedmem.contracts.reconstruction_sheet import read_reconstruction_sheets
from fedmem.reporting.measures import label_title
from fedmem.results.read import Run

PER_KIND = 3
"""Texts of each kind, probe, level and view that are shown: the first ones, not the best ones."""

_LEVELS = ("local", "sum", "global")


def reconstructed_rows(run: Run) -> list[tuple[str, ...]]:
    """Rows of the last attacked round: place, kind, truth, reconstruction, the baseline guess, and the outcome.

    Each probe, level and view has the first victims of each kind, by run, as they are in the files.
    """
    found = [one for one in read_reconstruction_sheets(run.reconstructions()) if "original_text" in one.columns]
    last: dict[str, int] = {}
    for one in found:
        last[one.source] = max(one.round, last.get(one.source, 0))
    rows: list[tuple[str, ...]] = []
    counts: dict[tuple[str, ...], int] = {}
    for one in sorted(found, key=lambda one: (one.source, _LEVELS.index(one.level), one.view, one.run)):
        source, level, view = one.source, one.level, one.view
        if one.round != last[source]:
            continue
        place = f"{level}: {label_title('view', view).replace('_', ' of ')}" + (f" ({source})" if len(last) > 1 else "")
        for i, kind in enumerate(one.columns["kind"].tolist()):
            counts[source, level, view, kind] = counts.get((source, level, view, kind), 0) + 1
            if counts[source, level, view, kind] > PER_KIND:
                continue
            texts = (str(one.columns[f"{part}_text"][i]) for part in ("original", "reconstruction", "prior"))
            similarity, baseline, identified_flag = (
                float(one.columns[key][i]) for key in ("similarity", "prior_similarity", "identified")
            )
            outcome = "" if math.isnan(identified_flag) else ", identified" if identified_flag else ", not identified"
            rows.append((place, kind, *texts, f"{similarity:.2f} (baseline guess {baseline:.2f}){outcome}"))
    return rows


TEXTS_NOTE = (
    "The first victims of each kind in the last attacked round, not the best ones. The baseline guess is picked by the "
    "truth. Similarity: mean of the shares of tokens and of places that agree."
)

TEXTS_COLUMNS = ("from", "kind", "true text", "reconstruction", "baseline guess", "similarity")


def texts_cells(run: Run) -> list[list[str | tuple[str, bool]]]:
    """The rows for a page; texts of the data are pairs of the text and whether it is emphasised."""
    return [
        [row[0], row[1], *((escape_invisible(text), False) for text in row[2:5]), row[5]]
        for row in reconstructed_rows(run)
    ]


def escape_invisible(text: str) -> str:
    """A text on one line, with what cannot be seen written as an escape.

    >>> escape_invisible("a\\n b\\x00")
    'a\\\\n b\\\\x00'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
