"""From a finished run to what is memorised of each kind, what its rows do to other answers, and what LiRA finds."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from fedmem.results.read import Run
from fedmem.studies.experiment import table_over_seeds

KINDS = ("adversarial", "poison", "typical")
PLACES = {("local", "owner"), ("global", "")}
KEYS = ["data", "what", "kind", "level"]

MEMORY, OTHERS, LIRA = "memorisation", "cross-influence", "AUC of LiRA"

_METRICS: Mapping[tuple[str, str], str] = {
    ("memorisation", "probability"): MEMORY,
    ("cross_influence", "probability"): OTHERS,
    ("auc", ""): LIRA,
}
"""Metric and statistic -> the name here."""


def of_run(run: Run) -> pd.DataFrame:
    """The values of the summary of one run: `what`, `kind`, `level` and `value`, at the owner and in the aggregate.

    Memorisation is by the probability of the label. Cross-influence is the expected number of right answers on the
    whole test set that one row adds, by probability.
    """
    rows = run.measurements
    places = pd.Series(list(zip(rows.level.astype(str), rows.place.astype(str), strict=True)), index=rows.index)
    keys = zip(rows.metric.astype(str), rows.statistic.astype(str), strict=True)
    what = pd.Series([_METRICS.get(key, "") for key in keys], index=rows.index)
    is_asked = (rows.scope == "summary") & rows.subject.astype(str).isin(KINDS) & places.isin(PLACES) & (what != "")
    found = rows[is_asked]
    return pd.DataFrame(
        {
            "what": what[found.index],
            "kind": found.subject.astype(str),
            "level": found.level.astype(str),
            "value": found.value.astype(float),
        }
    ).reset_index(drop=True)


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)
