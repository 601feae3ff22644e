"""From a finished run to how many rows other federations identify, at the victim, the aggregate and another client."""

from __future__ import annotations

import pandas as pd

from fedmem.results.read import Run
from fedmem.studies.experiment import table_over_seeds

KEYS = ["arm", "what", "level"]

IDENTIFIED, GUESSING, BOUND, GAIN = "identified", "guessing", "bound", "gain"
CONTROL = "another client"

_LEVELS = {"owner": "local", "aggregate": "global", "another": CONTROL}
"""Whose model is read -> the level here."""

_METRICS = {
    "shadow_identified": IDENTIFIED,
    "shadow_identified.null": GUESSING,
    "shadow_identified.bound": BOUND,
    "shadow_gain": GAIN,
}
"""Metric -> the name here."""


def of_run(run: Run) -> pd.DataFrame:
    """The values of one run after its last round: `what`, `level` and `value`.

    `level` is `local` for the message of the victim, `global` for the aggregate, and `another client` for the control.
    Gains are those over the mean of other rows.
    """
    rows = run.measurements
    asked = rows[rows.metric.astype(str).isin(list(_METRICS)) & (rows.scope.astype(str) == "round")]
    last = asked[(asked["round"] == asked["round"].max()) & (asked.over.astype(str) != "best")]
    return pd.DataFrame(
        {
            "what": last.metric.astype(str).map(_METRICS),
            "level": last.seen.astype(str).map(_LEVELS),
            "value": last.value.astype(float),
        }
    ).reset_index(drop=True)


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student), that of a share cut at 0 and 1.

    It is undefined where the value of a seed is.
    """
    found = table_over_seeds(values, KEYS)
    is_share = found.what != GAIN
    ends = found[["low", "high"]]
    return found.assign(**ends.where(~is_share, ends.clip(0.0, 1.0), axis=0))
