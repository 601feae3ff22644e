"""From finished runs to values of examples beside their memorisation, and to values of clients beside retraining."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.proxies.analysis import KIND, PLACES, WRONG, agreement
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import View
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.rank_agreement import Halves
from fedmem.estimation.statistics import mean
from fedmem.estimation.views import views
from fedmem.estimators.data_value import DataValue
from fedmem.results.read import read, read_bank
from fedmem.studies.experiment import over_seeds

HALVINGS = 10
KINDS = (KIND, WRONG)
KEYS = ["part", "what", "of", "level"]

VALUE, MEMORY = "value", "memorisation"
"""Means of a kind: the value by loss in nats, and memorisation by the probability of the label."""

RANKS, SPLIT, RELIABILITY = "agreement", "split", "reliability"
"""Rank correlation of value and memorisation, corrected for noise or not, and how well ranks of values repeat."""

RETRAINING, LAST = "agreement with retraining", "is last"
"""Rank correlation of values of clients with retraining, and whether the client with wrong labels is the last."""


def of_examples(folder: Path, seed: int) -> pd.DataFrame:
    """The means of each kind and, where all runs have one rate of inclusion, the correlations over examples."""
    rows = read(folder).measurements
    asked = rows[(rows.scope == "summary") & rows.subject.astype(str).isin(KINDS)]
    found = []
    for metric, statistic, name in (("data_value", "loss", VALUE), ("memorisation", "probability", MEMORY)):
        of_metric = asked[(asked.metric == metric) & (asked.statistic.astype(str) == statistic)]
        for row in of_metric.astype({"value": float}).to_dict("records"):
            if (str(row["level"]), str(row["place"])) in PLACES:
                made = {"what": name, "of": str(row["subject"]), "level": str(row["level"])}
                found.append({**made, "value": row["value"]})
    return pd.concat([pd.DataFrame(found), _correlations(folder, seed)], ignore_index=True)


def _correlations(folder: Path, seed: int) -> pd.DataFrame:
    """Value and memorisation from different halves of the runs, over the examples of each kind."""
    bank = read_bank(folder)
    audit = bank.audit
    halves = Halves.draw(audit.is_in, HALVINGS, np.random.default_rng(seed), audit.coin_rows)
    rows = []
    for view in views(bank, permute_coins(audit, 1, np.random.default_rng(0))):
        if view.round is not None or (view.level, view.place) not in PLACES:
            continue
        values = _values(view, halves)
        if values is None:
            continue
        memory = halves.means(_probability(view), "gain")
        for kind in KINDS:
            both = agreement(memory, values, np.flatnonzero(audit.kind == kind))
            rows += [{"what": what, "of": kind, "level": view.level, "value": both[what]} for what in both]
    return pd.DataFrame(rows, columns=["what", "of", "level", "value"])


def _values(view: View, halves: Halves) -> FloatArray | None:
    """(2, H, m) values by loss from each half of the runs."""
    targets = DataValue().example_targets(view)
    if not targets:
        return None
    (target,) = targets
    sides = (halves.first, ~halves.first)
    return np.stack([np.stack([target.from_runs(runs) for runs in side]) for side in sides])


def _probability(view: View) -> FloatArray:
    """(R, m) the probability of the label."""
    with np.errstate(invalid="ignore"):
        return np.asarray(mean(np.exp(-np.logaddexp(0.0, -view.margin)), axis=1))


def of_clients(folder: Path) -> pd.DataFrame:
    """How each valuation by loss agrees with retraining, and whether it finds the client with wrong labels last."""
    run = read(folder)
    rows = run.measurements
    asked = rows[(rows.scope == "summary") & (rows.statistic.astype(str) == "loss") & (rows.level == "global")]
    found = []
    for row in asked[asked.metric == "client_agreement"].astype({"value": float}).to_dict("records"):
        found.append({"what": RETRAINING, "of": str(row["valuation"]), "level": "global", "value": row["value"]})
    subjects = asked[asked.subject.astype(str).str.startswith("client ")]
    values = subjects[subjects.metric == "client_value"].assign(of=lambda one: one.valuation.astype(str))
    # by retraining a useful client has a negative loss
    retrained = subjects[subjects.metric == "client_influence"].assign(of="retraining", value=lambda one: -one.value)
    for name, group in pd.concat([values, retrained]).groupby("of", sort=False):
        last = str(group.subject.iloc[int(group.value.astype(float).argmin())])
        found.append({"what": LAST, "of": str(name), "level": "global", "value": float(last == "client 9")})
    return pd.DataFrame(found)


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is.

    A share of seeds, `LAST`, has no interval.
    """
    rows = []
    for key, group in values.groupby(KEYS, sort=False):
        of_seeds = group.sort_values("seed")["value"].to_numpy(dtype=np.float64)
        row = {**dict(zip(KEYS, key, strict=True)), **over_seeds(of_seeds)}
        rows.append({**row, "low": math.nan, "high": math.nan} if row["what"] == LAST else row)
    return pd.DataFrame(rows)
