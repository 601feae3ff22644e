"""From a finished run to what training on an image changes: its log density, samples, and what attacks find."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fedmem.results.read import Run
from fedmem.studies.experiment import table_over_seeds

KINDS = ("once", "four", "sixteen")
PLACES = {("local", "owner"), ("global", "")}
KEYS = ["what", "kind", "level"]

DENSITY, DISTANCE, EXTRACTED = "log density", "distance", "extracted"
LIRA, NEAREST = "LiRA", "nearest sample"
C_T, AUTHENTICITY = "C_T", "authenticity"

_METRICS: Mapping[tuple[str, str], str] = {
    ("log_density_gain", ""): DENSITY,
    ("sample_distance_gain", ""): DISTANCE,
    ("eidetic_gain", ""): EXTRACTED,
    ("auc", "lira"): LIRA,
    ("auc", "nearest_sample"): NEAREST,
    ("data_copying_gain", ""): C_T,
    ("authenticity_gain", ""): AUTHENTICITY,
}
"""Metric and attack -> the name here. All but the AUCs are differences in − out."""


def of_run(run: Run) -> pd.DataFrame:
    """The values of one run folder: `what`, `kind`, `level` and `value`, of the summary at the owner and the aggregate.

    Distances are in percent of the range of grey levels.
    """
    rows = run.measurements
    place = pd.Series(list(zip(rows.level.astype(str), rows.place.astype(str), strict=True)), index=rows.index)
    keys = zip(rows.metric.astype(str), rows.attack.astype(str), strict=True)
    what = pd.Series([_METRICS.get(key, "") for key in keys], index=rows.index)
    is_asked = (rows.scope == "summary") & rows.subject.astype(str).isin(KINDS) & place.isin(PLACES) & (what != "")
    found = rows[is_asked & (rows.statistic.astype(str) == "")]
    return pd.DataFrame(
        {
            "what": what[found.index],
            "kind": found.subject.astype(str),
            "level": found.level.astype(str),
            "value": found.value.astype(float) * np.where(what[found.index] == DISTANCE, 100.0, 1.0),
        }
    ).reset_index(drop=True)


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)
