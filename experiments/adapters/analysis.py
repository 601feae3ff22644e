"""From banks to what they show at equal utility: each measure where an arm reaches a loss on the test set.

Arms learn at different speeds, so equal rounds compare unequal models. A measure is therefore read where the loss on
the test set has fallen by a fixed number of nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import Bank
from fedmem.reporting.measures import zone_of_metric
from fedmem.results.read import Run
from fedmem.studies.experiment import over_seeds

PLACES = {("local", "owner"): "local", ("local", "others"): "others", ("global", ""): "global"}
MEASURES = (("exposure", ""), ("exposure_gain", ""), ("memorisation", "probability"), ("auc", ""))
"""Metric and statistic of what is read."""

LAST = "last round"
"""The reading after equal rounds, beside those at equal utility."""

KEYS = ["task", "where", "trained", "at", "metric", "kind", "place"]


def of_bank(run: Run, bank: Bank) -> pd.DataFrame:
    """All measures of the rounds of a bank: round, metric, kind, place, value, n and the value it saturates at.

    Clients have no model of their own in round 0; theirs is the one that all start from, the global one. The metrics
    `test_loss` (nats) and `test_accuracy` are those of the aggregate, means over runs.
    """
    rows = run.measurements
    rows = rows[(rows.scope == "round") & rows.subject.isin(set(run.audit.kind))]
    mask = pd.Series(False, index=rows.index)
    for metric, statistic in MEASURES:
        mask |= (rows.metric == metric) & (rows.statistic == statistic)
    rows = rows[mask & (rows.client == -1)].rename(columns={"subject": "kind"})
    rows = rows.assign(place=[PLACES[key] for key in zip(rows.level, rows.place, strict=True)])
    first = rows[(rows["round"] == 0) & (rows.place == "global")]
    rows = pd.concat([rows, *(first.assign(place=place) for place in ("local", "others"))])
    counts = run.reference_counts
    about = zip(rows["metric"].astype(str), rows["kind"].astype(str), strict=True)
    tops = [zone_of_metric(metric, counts.get(kind, ())).top for metric, kind in about]
    found = rows.assign(top=tops)[["round", "metric", "kind", "place", "value", "n", "top"]]
    return pd.concat([found, _utility(bank)], ignore_index=True)


def _utility(bank: Bank) -> pd.DataFrame:
    """The loss and accuracy of the aggregate on the test set in each round, means over runs."""
    parts = [part for part in bank.evidence if (part.set, part.level) == ("test", "global")]
    rows = [
        {"round": part.round, "metric": metric, "value": float(np.mean(values)), "n": part.shape[1]}
        for part in parts
        for metric, values in (("test_loss", part.loss), ("test_accuracy", part.correct))
    ]
    return pd.DataFrame(rows).assign(kind="", place="global", top=math.inf)


def crossing(losses: FloatArray, fall: float) -> float:
    """The round, with its fraction, at which losses (rounds + 1,) have first fallen so far; NaN if they never do.

    >>> crossing(np.array([4.0, 3.0, 2.0, 2.5]), 1.5), crossing(np.array([4.0, 3.0]), 1.5)
    (1.5, nan)
    """
    level = losses[0] - fall
    reached = np.flatnonzero(losses <= level)
    if not len(reached):
        return math.nan
    after = int(reached[0])
    if not after:
        return 0.0
    before = losses[after - 1]
    return after - 1 + float((before - level) / (before - losses[after]))


def at_levels(rounds: pd.DataFrame, levels: Mapping[str, float]) -> pd.DataFrame:
    """The measures of one bank where the loss has fallen so far, and in the last round: with the column `at`.

    Values lie on the line between the two rounds around a crossing, and are NaN where a level is never reached. The
    metric `round` is where that is.
    """
    losses = rounds[rounds.metric == "test_loss"].sort_values("round").value.to_numpy(dtype=np.float64)
    last = len(losses) - 1
    found = []
    for name, place in {**{key: crossing(losses, fall) for key, fall in levels.items()}, LAST: float(last)}.items():
        before = 0 if math.isnan(place) else min(int(place), last - 1)
        weight = place - before
        keys = ["metric", "kind", "place"]
        pair = [rounds[rounds["round"] == number].set_index(keys) for number in (before, before + 1)]
        rows = pair[1].assign(value=(1 - weight) * pair[0].value + weight * pair[1].value).reset_index()
        row = {"metric": "round", "kind": "", "place": "global", "value": place, "n": 1, "top": math.inf}
        found.append(pd.concat([rows.drop(columns="round"), pd.DataFrame([row])]).assign(at=name))
    return pd.concat(found, ignore_index=True)


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds (Student) of each measure; undefined unless every seed has a value.

    `reached` counts the seeds that reach the level, `n` the examples of all seeds together. `saturated`: the mean is
    too near its ceiling to be compared.
    """
    rows = []
    for key, group in values.groupby(KEYS, sort=False):
        of_seeds = group.sort_values("seed").value.to_numpy(dtype=np.float64)
        row = {**dict(zip(KEYS, key, strict=True)), **over_seeds(of_seeds)}
        row |= {"reached": int(np.isfinite(of_seeds).sum()), "n": int(group.n.sum())}
        rows.append(row | {"saturated": bool(row["mean"] >= group.top.min())})
    return pd.DataFrame(rows)
