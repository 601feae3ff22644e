"""Results by client for a terminal: a measure over the audit examples of each owning client, the highest first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedmem.reporting.cells import Section, Value
from fedmem.reporting.measures import measure_of, measures_of_run
from fedmem.reporting.table import Grid, prose
from fedmem.results.by_client import COLUMNS
from fedmem.wording import client_text

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.results.read import Run


def client_lines(run: Run, frame: pd.DataFrame, max_clients: int, width: int) -> Iterator[str]:
    """The frame of `Run.by_client` as lines: up to `max_clients` of each kind and level, with adjusted intervals."""
    measure = measure_of(str(frame["metric"].iloc[0]), measures_of_run(run))
    digits = measure.digits
    labels = [column for column in frame.columns if column not in COLUMNS]
    blocks = []
    for key, group in frame.groupby(["kind", "level", *labels], sort=False):
        rows = []
        for row in group.sort_values("value", ascending=False, kind="stable").to_dict("records")[:max_clients]:
            value = Value(value=row["value"], low=row["adjusted_low"], high=row["adjusted_high"], n=row["n"])
            text = "undefined" if math.isnan(value.value) else value.text(digits)
            p = "" if math.isnan(row["p_adjusted"]) else f"{row['p_adjusted']:.2g}"
            rows.append((client_text(row["client"], run.client_names), str(row["n"]), text, p))
        if len(group) > max_clients:
            rows.append((f"… and {len(group) - max_clients} more", "", "", ""))
        parts = zip(("kind", "level", *labels), key, strict=True)
        texts = [part if isinstance(part, str) else f"{name} {part}" for name, part in parts]
        blocks.append((", ".join(filter(None, texts)), tuple(rows)))
    section = Section(
        title=f"{measure.title.upper()} BY CLIENT",
        columns=("", "n", "value", "adjusted p"),
        blocks=tuple(blocks),
    )
    yield from (text for text, _ in Grid.of([section], width).lines(section))
    note = (
        f"In brackets 95 % intervals, adjusted for all {_span(frame['tests'])} clients of a kind and level, as is p "
        "(Bonferroni). Clients whose intervals do not overlap differ. n: examples of the client; fewer than 8 have no "
        "interval."
    )
    yield from (text for text, _ in prose(note, width))


def _span(tests: pd.Series[int]) -> str:
    """How many clients values are adjusted for, such as `20` or `3 to 20`."""
    return " to ".join(dict.fromkeys((str(tests.min()), str(tests.max()))))
