"""From finished banks to one row for each setting and quantity: mean over seeds, and difference to no privacy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from fedmem.reporting.measures import zone_of_metric
from fedmem.results.read import Run
from fedmem.studies.contrasts import contrast, mean_of

KEYS = ["data", "place", "target"]
QUANTITY = ["metric", "kind", "level"]
MEASURES = ("exposure", "exposure_gain", "memorisation", "auc")
LEAKS = ("identified", "identified.difference", "margin.difference")


def readings(run: Run) -> pd.DataFrame:
    """The results of one bank after its last round: utility, memorisation at both levels, leakage of messages.

    `epsilon` is what the run guarantees for its own unit, infinite without noise. Columns metric, kind, level, value,
    null, the value that no memorisation gives, and `saturated_from`, from which on a value is too near its ceiling.
    """
    last = run.measurements[run.measurements.scope == "summary"]
    rows: list[tuple[str, str, str, float, float]] = []
    accuracy = last[(last.metric == "test_accuracy") & (last.level == "global")]
    rows.append(("accuracy", "", "global", float(accuracy.value.iloc[0]), math.nan))
    kinds = list(dict.fromkeys(run.audit.kind))
    of_kinds = last[last.subject.isin(kinds) & (last.place != "others")]
    for metric in MEASURES:
        part = of_kinds[(of_kinds.metric == metric) & (of_kinds.statistic == "") & of_kinds.attack.isin(["", "lira"])]
        null = (
            of_kinds[of_kinds.metric == f"{metric}.null"].set_index(["subject", "level", "statistic", "attack"]).value
        )
        row: Any
        for row in part.itertuples():
            null_value = float(null.loc[row.subject, row.level, row.statistic, row.attack])
            rows.append((metric, row.subject, str(row.level), float(row.value), null_value))
    messages = of_kinds[(of_kinds.source == "leakage") & of_kinds.metric.isin(LEAKS) & (of_kinds.get("coin") != "out")]
    for metric, subject, value in zip(messages.metric, messages.subject, messages.value, strict=True):
        rows.append((metric, subject, "message", float(value), math.nan))
    frame = pd.DataFrame(rows, columns=[*QUANTITY, "value", "null"])
    counts, measured = run.reference_counts, zip(frame.metric, frame.kind, strict=True)
    tops = [zone_of_metric(metric, counts.get(kind, ())).top for metric, kind in measured]
    return frame.assign(epsilon=epsilon_of(run), saturated_from=tops)


def epsilon_of(run: Run) -> float:
    """The epsilon of the only mechanism; infinite where there is none, or only clipping."""
    mechanisms = (run.manifest.get("privacy") or {}).get("mechanisms", [])
    # a manifest is strict JSON, which has no infinity
    return float(mechanisms[0]["epsilon"]) if mechanisms and mechanisms[0]["epsilon"] is not None else math.inf


def results(readings: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting and quantity.

    It has `value` with its 95 % interval over seeds (Student), the `null`, and the number of `seeds`. Beside these is
    the paired difference to the federation without privacy, with its interval. `epsilon` is the largest that a seed
    guarantees. `saturated` and
    `reference_saturated`: the mean, or that without privacy, is too near the ceiling of the measure to be compared, at
    `saturated_from` or above.
    """
    rows = []
    bare = readings[readings.place == "none"]
    baseline = bare.set_index(["data", *QUANTITY, "seed"]).value
    means = bare.groupby(["data", *QUANTITY], dropna=False).value.mean()
    for key, part in readings.groupby([*KEYS, *QUANTITY], sort=False, dropna=False):
        labels = dict(zip([*KEYS, *QUANTITY], key, strict=True))
        mean = mean_of(part.value.to_numpy(dtype=np.float64))
        row = labels | {"epsilon": part.epsilon.max(), "value": mean.value, "low": mean.low, "high": mean.high}
        top = part.saturated_from.min()
        row |= {"null": part.null.mean(), "seeds": mean.n, "saturated": mean.value >= top, "saturated_from": top}
        if labels["place"] != "none":
            places = [(labels["data"], *key[len(KEYS) :], seed) for seed in part.seed]
            difference = contrast(
                part.value.to_numpy(dtype=np.float64), baseline.reindex(places).to_numpy(dtype=np.float64)
            )
            row |= {
                "difference": difference.value,
                "difference_low": difference.low,
                "difference_high": difference.high,
            }
            row["reference_saturated"] = means.get((labels["data"], *key[len(KEYS) :]), math.nan) >= top
        rows.append(row)
    return pd.DataFrame(rows)
