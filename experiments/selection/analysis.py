"""From a finished run to what is memorised and found of each kind, and how good the aggregate is."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from fedmem.results.read import Run
from fedmem.studies.experiment import table_over_seeds

KINDS = ("mislabelled", "isolated", "typical")
PLACES = {("local", "owner"), ("global", "")}
KEYS = ["what", "kind", "level", "arm"]

MEMORY, LIRA, ACCURACY = "memorisation", "lira", "test accuracy"

_METRICS: Mapping[str, tuple[str, str]] = {"memorisation": (MEMORY, "probability"), "auc": (LIRA, "")}
"""Metric -> its name here, and the label `statistic` of its rows."""


def of_run(run: Run) -> pd.DataFrame:
    """The values of one run folder: `what`, `kind`, `level` and `value`.

    Memorisation is by the probability of the label. The attack is LiRA, by the area under its ROC curve. Both are of
    the model of the summary: that of the owner, and the aggregate. Test accuracy is the mean over runs of the last
    aggregate.
    """
    rows = run.measurements
    place = pd.Series(list(zip(rows.level.astype(str), rows.place.astype(str), strict=True)), index=rows.index)
    asked = rows[(rows.scope == "summary") & rows.subject.astype(str).isin(KINDS) & place.isin(PLACES)]
    is_read = asked.statistic.astype(str) == asked.metric.map(lambda metric: _METRICS.get(metric, ("", "?"))[1])
    found = asked[is_read & asked.metric.isin(list(_METRICS))]
    values = pd.DataFrame(
        {
            "what": found.metric.map(lambda metric: _METRICS[metric][0]),
            "kind": found.subject.astype(str),
            "level": found.level.astype(str),
            "value": found.value.astype(float),
        }
    )
    tests = rows[(rows.metric == "test_accuracy") & (rows.scope == "run") & (rows.level == "global")]
    last = tests[tests["round"] == tests["round"].max()]
    accuracy = {"what": ACCURACY, "kind": "", "level": "global", "value": float(last.value.astype(float).mean())}
    return pd.concat([values, pd.DataFrame([accuracy])], ignore_index=True)


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)
