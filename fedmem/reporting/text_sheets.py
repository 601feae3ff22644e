"""Reconstructed texts beside the true ones, for the page of a run."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator

from fedmem.reporting.measures import label_title
from fedmem.results.read import Run

PER_KIND = 3
"""Texts of each kind, probe, level and view that are shown: the first ones, not the best ones."""

_KEPT = re.compile(r"(.+)/round_(\d+)/(local|sum|global)/([^/]+)/run_(\d+)/original_text")
"""What probes of reconstruction keep of texts: source, round, level, view and run."""


def reconstructed_rows(run: Run) -> list[tuple[str, ...]]:
    """Rows of the last attacked round: place, kind, truth, reconstruction, the best prior, and the outcome.

    Of each probe, level and view the first victims of each kind, by run, as they are in the files.
    """
    arrays = run.reconstructions()
    matches = [match for name in arrays if (match := _KEPT.fullmatch(name))]
    last = {source: max(int(m[2]) for m in matches if m[1] == source) for source in {m[1] for m in matches}}
    rows: list[tuple[str, ...]] = []
    counts: dict[tuple[str, ...], int] = {}
    for match in sorted(matches, key=lambda m: (m[1], ("local", "sum", "global").index(m[3]), m[4], int(m[5]))):
        source, level, view = match[1], match[3], match[4]
        if int(match[2]) != last[source]:
            continue
        base = match[0].removesuffix("original_text")
        place = f"{level}: {label_title('view', view).replace('_', ' of ')}" + (f" ({source})" if len(last) > 1 else "")
        for i, kind in enumerate(arrays[f"{base}kind"].tolist()):
            counts[source, level, view, kind] = counts.get((source, level, view, kind), 0) + 1
            if counts[source, level, view, kind] > PER_KIND:
                continue
            texts = (str(arrays[f"{base}{part}_text"][i]) for part in ("original", "reconstruction", "prior"))
            similarity, baseline, identified_flag = (
                float(arrays[f"{base}{key}"][i]) for key in ("similarity", "prior_similarity", "identified")
            )
            outcome = "" if math.isnan(identified_flag) else ", identified" if identified_flag else ", not identified"
            rows.append((place, kind, *texts, f"{similarity:.2f} (prior {baseline:.2f}){outcome}"))
    return rows


def passages_html(run: Run) -> Iterator[str]:
    """The table of reconstructed texts, if there are any; whatever comes from a file is escaped."""
    rows = reconstructed_rows(run)
    if not rows:
        return
    yield (
        "<h2>Reconstructed texts</h2><p>The first victims of each kind in the last attacked round, not the best ones. "
        "The best prior is picked by the truth. Similarity: mean of the shares of tokens and of places that agree.</p>"
    )
    columns = ("from", "kind", "true text", "reconstruction", "best prior", "similarity")
    yield "<table>" + "<tr>" + "".join(f"<th>{column}</th>" for column in columns) + "</tr>"
    for row in rows:
        cells = [f"<td>{html.escape(row[0])}</td>", f"<td>{html.escape(row[1])}</td>"]
        cells += [f"<td><code>{html.escape(escape_invisible(text))}</code></td>" for text in row[2:5]]
        yield "<tr>" + "".join(cells) + f"<td>{html.escape(row[5])}</td></tr>"
    yield "</table>"


def escape_invisible(text: str) -> str:
    """A text on one line, with what cannot be seen written as an escape.

    >>> escape_invisible("a\\n b\\x00")
    'a\\\\n b\\\\x00'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
