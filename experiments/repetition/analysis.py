"""From finished federations to two facts about repetition: exposure rises, counterfactual memorisation falls."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedmem.contracts.arrays import FloatArray
from fedmem.reporting.measures import zone_of_metric
from fedmem.results.read import Run
from fedmem.studies.contrasts import mean_of
from fedmem.studies.experiment import verdict

SECRETS = {"x1": 1, "x2": 2, "x4": 4, "x8": 8, "x16": 16}
PASSAGES = {"p1": 1, "p2": 2, "p4": 4, "p8": 8, "p16": 16}
"""Labels of the scenario: label -> how often it stands in the text of its owner, when it is in."""

CLAIMS = (
    ("exposure", "secrets", 1, "exposure of secrets rises with repetition, bits for each doubling"),
    ("memorisation", "secrets", -1, "counterfactual memorisation of secrets falls with repetition, for each doubling"),
    (
        "memorisation",
        "passages",
        -1,
        "counterfactual memorisation of passages falls with repetition, for each doubling",
    ),
)
"""The measured quantity, its subject, the sign of its slope, and the claim in words."""


def of_run(run: Run) -> pd.DataFrame:
    """Exposure and memorisation of the final models of a federation, at the owner and in the aggregate.

    `saturated_from` is the value from which on a measure is too near its ceiling to be compared.
    """
    rows = run.measurements
    times = SECRETS | PASSAGES
    mask = rows.metric.isin(["exposure", "memorisation"]) & rows.subject.isin(times) & (rows.scope == "summary")
    # of memorisation that of correctness, as Zhang et al. define it
    last = rows[mask & (rows.statistic == "") & (rows.place != "others")]
    last = last[["metric", "level", "subject", "value", "n"]]
    counts, measured = run.reference_counts, zip(last.metric, last.subject, strict=True)
    tops = [zone_of_metric(metric, counts.get(kind, ())).top for metric, kind in measured]
    return last.assign(
        saturated_from=tops,
        times=last.subject.map(times),
        what=np.where(last.subject.isin(SECRETS), "secrets", "passages"),
    ).drop(columns="subject")


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds (Student) of everything, and whether the mean is saturated."""
    rows = []
    for key, group in values.groupby(["what", "metric", "level", "times"]):
        mean = mean_of(group.sort_values("seed").value.to_numpy(dtype=np.float64))
        rows.append(dict(zip(("what", "metric", "level", "times"), key, strict=True)))
        rows[-1] |= {"mean": mean.value, "low": mean.low, "high": mean.high, "seeds": mean.n, "n": int(group.n.sum())}
        rows[-1]["saturated"] = mean.value >= group.saturated_from.min()
    return pd.DataFrame(rows)


def slopes(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim at each level: the slope for each doubling, its 95 % interval over seeds, and a verdict.

    `holds` where the interval has the claimed sign, `contradicted` where it has the other, `not significant`
    where it contains zero, `undefined` without an interval. Intervals are not adjusted for the number of claims.
    `saturated`: how many of the five means that the slope is fitted to are saturated, which makes it too flat.
    """
    rows = []
    for metric, what, sign, claim in CLAIMS:
        for level in ("local", "global"):
            selection = values[(values.metric == metric) & (values.what == what) & (values.level == level)]
            mean = mean_of(slope(selection))
            ends = (mean.low, mean.high) if sign > 0 else (-mean.high, -mean.low)
            rows.append({"claim": claim, "level": level, "slope": mean.value, "low": mean.low, "high": mean.high})
            means = selection.groupby("times").agg({"value": "mean", "saturated_from": "min"})
            rows[-1] |= {"seeds": mean.n, "verdict": verdict(*ends)}
            rows[-1]["saturated"] = int((means.value >= means.saturated_from).sum())
    return pd.DataFrame(rows)


def slope(values: pd.DataFrame) -> FloatArray:
    """(seeds,) the slope by least squares over the binary logarithm of repetitions, seed by seed; NaN with a gap."""
    cells = values.pivot_table(index="times", columns="seed", values="value", dropna=False)
    cells = cells.reindex(sorted(SECRETS.values()))
    x = np.log2(cells.index.to_numpy(dtype=np.float64))
    x = x - x.mean()
    estimates: FloatArray = (x[:, None] * cells.to_numpy(dtype=np.float64)).sum(axis=0) / (x**2).sum()
    return estimates
