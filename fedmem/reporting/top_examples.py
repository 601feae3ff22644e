"""The most memorised examples as lines for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from fedmem.contracts.measurement import Level
from fedmem.errors import shorten
from fedmem.reporting.cells import Value
from fedmem.reporting.text_sheets import escape_invisible
from fedmem.results.read import Run
from fedmem.results.top import Ranking, notes
from fedmem.wording import class_text, client_text

_LONGEST = 600
"""Characters of an example in writing."""

_PLACES: Mapping[Level, str] = {"global": "the global model", "local": "the owning client's model"}


def headline(run: Run, ranking: Ranking) -> str:
    """The number of examples shown, their scenario, measure and level."""
    shown, total = len(ranking.frame), ranking.candidates
    is_proxy = ranking.measure.section == "proxies"
    end = "lowest" if ranking.is_lowest else "highest" if is_proxy else "most memorised"
    what = f"the {shown} {end} of {total}" if shown < total else f"all {total}"
    noun = "audit example" if total == 1 else "audit examples"
    return (
        f"{run.scenario.get('name', '')} · {run.path.name}: {what} {noun}, by {ranking.name} in "
        f"{_PLACES[ranking.level]}"
    )


def _facts(run: Run, row: Mapping[str, Any]) -> str:
    """Kind, owner and label of an example."""
    parts = [f"#{row['subject']}", str(row["kind"]), client_text(int(row["owner"]), run.client_names)]
    names = run.names
    if names.modality is None or not names.modality.tokens:
        label, true = int(row["target"]), int(row["true_target"])
        was = f" (true label {class_text(true, names.class_names)})" if true not in (-1, label) else ""
        parts.append(f"label {class_text(label, names.class_names)}{was}")
    return escape_invisible(" · ".join(parts))


def _score(ranking: Ranking, row: Mapping[str, Any], level: Level) -> str:
    """The score at a level with its interval and number of runs."""
    value = Value(value=row[level], low=row[f"{level}_low"], high=row[f"{level}_high"], n=row[f"{level}_n"])
    if math.isnan(value.value):
        return "not measured"
    return f"{value.text(max(2, ranking.measure.digits - 1))} n {value.n}"


def _p(row: Mapping[str, Any]) -> str:
    """Its p, that adjusted, and the mark; or that there is none."""
    if math.isnan(row["p"]):
        return "no p"
    return f"p {row['p']:.2g}, adjusted {row['p_adjusted']:.2g}{' *' if row['significant'] else ''}"


def _records(ranking: Ranking) -> list[dict[str, Any]]:
    """A mapping for each row."""
    return [{str(name): value for name, value in row.items()} for row in ranking.frame.to_dict("records")]


def _rank(row: Mapping[str, Any]) -> str:
    return f"{row['rank']}{'=' if row['tied'] else '.'}"


def lines(run: Run, ranking: Ranking, width: int) -> Iterator[str]:
    """Lines of at most this width, but for sketches."""

    def wrap(text: str, indent: str) -> list[str]:
        return textwrap.wrap(text, max(width, 40), initial_indent=indent, subsequent_indent=indent) or [indent]

    yield from wrap(headline(run, ranking), "")
    for row in _records(ranking):
        yield ""
        yield from textwrap.wrap(f"{_rank(row):4}{_facts(run, row)}", max(width, 40), subsequent_indent=" " * 4)
        scores = "   ".join(f"{level} {_score(ranking, row, level)}" for level in ("local", "global"))
        yield from wrap("   ".join(filter(None, (scores, _p(row)))), " " * 4)
        text = shorten(escape_invisible(row["text"]), _LONGEST)
        if text:
            yield from wrap(text, " " * 4)
        elif run.names.modality is not None:
            yield from (f"    {line}" for line in run.names.modality.sketch(row["inputs"]))
    yield ""
    for note in notes(ranking):
        yield from wrap(note, "")
