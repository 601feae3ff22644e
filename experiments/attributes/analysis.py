"""From a finished run to how often each kind's attribute is guessed, with and without the model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedmem.results.read import Run
from fedmem.studies.experiment import table_over_seeds

KINDS = ("random_row", "mislabelled", "typical")
PLACES = {("local", "owner"), ("global", "")}
KEYS = ["what", "kind", "level", "arm"]

IN, OUT, GAIN = "in", "out", "gain"
GUESSES = ("csmia", "weighted", "lomia", "exposure")
BASELINES = ("mode", "imputed", "imputed_50", "imputed_500")
AGREEMENT, MEMORY = "agreement of the exposure gain", "memorisation"


def quantity(guess: str, side: str) -> str:
    """The name of a guess over in runs, over out runs, or of their difference.

    >>> quantity("csmia", GAIN)
    'csmia gain'
    """
    return f"{guess} {side}"


def of_run(run: Run) -> pd.DataFrame:
    """The values of one run folder: `what`, `kind`, `level` and `value`.

    Shares of right guesses over runs with the records, over runs without them, and their difference; the exposure
    in bits as well. Baselines have one value. Memorisation is that of the summary, and its agreement with the exposure
    gain is over the records of a kind, from other runs. Both are of the owner and of the aggregate.
    """
    rows = run.measurements
    place = pd.Series(list(zip(rows.level.astype(str), rows.place.astype(str), strict=True)), index=rows.index)
    asked = rows[(rows.scope == "summary") & rows.subject.astype(str).isin(KINDS) & place.isin(PLACES)]
    parts = [
        _values(asked, f"attribute_{guess}" + ("_gain" if side == GAIN else ""), OUT if side == OUT else "").assign(
            what=quantity(guess, side)
        )
        for guess in GUESSES
        for side in (IN, OUT, GAIN)
    ]
    parts += [_values(asked, f"attribute_{name}", "").assign(what=name) for name in BASELINES]
    parts.append(_values(asked, MEMORY, "").assign(what=MEMORY))
    if {"of", "target", "given"} <= set(asked):
        is_asked = (asked.of.astype(str) == "attribute_exposure") & (asked.target.astype(str) == MEMORY)
        is_plain = asked.given.astype(str) == ""
        parts.append(_values(asked[is_asked & is_plain], "agreement", GAIN).assign(what=AGREEMENT))
    return pd.concat(parts, ignore_index=True)


def _values(rows: pd.DataFrame, metric: str, statistic: str) -> pd.DataFrame:
    """Kind, level and value of the rows of a metric with this label."""
    found = rows[(rows.metric.astype(str) == metric) & (rows.statistic.astype(str) == statistic)]
    return pd.DataFrame(
        {
            "kind": found.subject.astype(str),
            "level": found.level.astype(str),
            "value": found.value.astype(np.float64),
        }
    )


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)
