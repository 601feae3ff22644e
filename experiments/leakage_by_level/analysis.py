"""From what the probe wrote to one row for each stage, level and kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedmem.probes._clusters import mean_interval
from fedmem.results.read import Run

LEVELS = ("local", "sum of 2", "sum of 5", "sum of 10", "global")
KEYS = ["stage", "level", "kind"]


def results(run: Run, rounds: int) -> pd.DataFrame:
    """A row for each stage, level and kind.

    It has `identified` and `margin` (the gain over the baseline guess, dB) with 95 % intervals. Both are there for out
    examples too (`_out`), and as difference (`_gain`). `fall` is the `margin` of the same victims in their client's
    message minus that at this level, in dB. The victims are `n` from `runs` runs. `gallery` is the size of the
    gallery, of which `peers` are peers. `accuracy` is that of the aggregate on the test set.
    """
    rows = probe_rows(run.measurements, run.audit, rounds)
    summed, single = rows[rows.scope == "round"], rows[rows.scope == "run"]
    summary = pd.DataFrame(index=pd.MultiIndex.from_frame(summed[KEYS].drop_duplicates()))
    for metric in ("identified", "margin"):
        for suffix, selection in (
            ("", summed[(summed.metric == metric) & (summed.coin != "out")]),
            ("_out", summed[(summed.metric == metric) & (summed.coin == "out")]),
            ("_gain", summed[summed.metric == f"{metric}.difference"]),
        ):
            part = selection.set_index(KEYS)[["value", "low", "high"]]
            summary = summary.join(part.set_axis([f"{metric}{suffix}{end}" for end in ("", "_low", "_high")], axis=1))
    first = summed[(summed.metric == "identified") & (summed.coin != "out")].set_index(KEYS)
    summary = summary.join(first[["n", "gallery", "peers"]].apply(pd.to_numeric))
    summary["beats_prior"] = summed[(summed.metric == "beats_prior") & (summed.coin != "out")].set_index(KEYS).value
    summary = summary.join(falls(single[(single.coin != "out") & (single.metric == "margin")]))
    summary["runs"] = run.scenario["runs"]
    accuracy = run.measurements.query("metric == 'test_accuracy' and level == 'global' and scope == 'round'")
    # accuracy is measured before the first round, too
    accuracy = accuracy[accuracy["round"].isin(rows["round"])]
    by_stage = accuracy.assign(stage=stages(accuracy["round"], rounds)).groupby("stage").value.first()
    summary["accuracy"] = by_stage.reindex(summary.index.get_level_values("stage")).to_numpy()
    order = {name: place for place, name in enumerate(("start", "middle", "end", *LEVELS))}
    rows = summary.reset_index().sort_values(KEYS, key=lambda column: column.map(order).fillna(0), kind="stable")
    return rows.reset_index(drop=True)


def probe_rows(measurements: pd.DataFrame, audit: pd.DataFrame, rounds: int) -> pd.DataFrame:
    """The rows of the probe with their stage, level and kind, and the labels of all of them."""
    rows = measurements[(measurements.source == "leakage") & (measurements.scope != "summary")]
    rows = rows[rows.subject != ""]
    kinds = dict(zip(audit.subject.astype(str), audit.kind, strict=True))
    sizes = "sum of " + rows["clients"].astype(str)
    return rows.assign(
        stage=stages(rows["round"], rounds),
        level=rows.level.astype(str).where(rows.level != "sum", sizes),
        kind=rows.subject.map(lambda subject: kinds.get(subject, subject)),
    )


def stages(when: pd.Series, rounds: int) -> pd.Series:
    """Names of the attacked rounds: the first, whose model is the initial one, the last, and what lies between."""
    return when.map(
        lambda round_number: "start" if round_number == 1 else "end" if round_number == rounds else "middle"
    )


def falls(single: pd.DataFrame) -> pd.DataFrame:
    """By level and kind the mean of local minus this level's value over the victims seen at both, and its interval."""
    by_level = single.pivot_table(index=["stage", "kind", "run", "owner", "subject"], columns="level", values="value")
    rows = []
    for (stage, kind), part in by_level.groupby(level=["stage", "kind"]):
        for level in part.columns.difference(["local"], sort=False):
            pairs = part[["local", level]].dropna().reset_index()
            value, low, high = paired_interval(pairs["local"] - pairs[level], pairs.owner.tolist(), pairs.run.tolist())
            rows.append((stage, level, kind, value, low, high))
    columns = [*KEYS, "fall", "fall_low", "fall_high"]
    return pd.DataFrame(rows, columns=columns).set_index(KEYS)


def paired_interval(differences: pd.Series, owners: Sequence[str], runs: Sequence[int]) -> tuple[float, float, float]:
    """Mean with Student's interval, clustered by owner or by run, whichever is wider; NaN without a pair."""
    if differences.empty:
        return math.nan, math.nan, math.nan
    values = np.asarray(differences, dtype=np.float64)
    return float(values.mean()), *mean_interval(values, owners, runs)
