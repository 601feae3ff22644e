"""What one run of an app shows of its owners: their models minus those of other clients of the same round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.statistics import jackknife, student, student_mean
from fedmem.estimation.two_way import FEWEST

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("round", "level", "set", "measure", "contrast", "value", "low", "high", "n", "clients", "note")

OWNERS_IN, OWNERS_OUT, COINS = "owners - others, in", "owners - others, out", "in - out"

_NOTES = {
    OWNERS_IN: "a difference between clients, not memorisation",
    OWNERS_OUT: "the same difference without planting",
    COINS: "causal only if inclusion was random",
}


def summarise(frame: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Differences of each observed round, with 95 % intervals.

    - `owners - others, in` (local): for each held example, the value at its owner minus the mean over the other clients
      of the round; then the mean over examples. With eight or more owners the interval is over owners, otherwise over
      examples, as examples of these clients.
    - `owners - others, out` (local): the same for examples that an assignment left out. Nobody trained on
      them, so that it shows how much clients differ anyway.
    - `in - out` (local at the owners, and global): mean over included examples minus mean over those left out, Welch's
      interval over examples.

    `n` counts examples, `clients` their owners. An interval is NaN with fewer than eight examples.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    # nobody is -1 or empty
    known = frame[frame["owner"].astype(str).isin(["-1", ""]).eq(False)] if len(frame) else frame
    for (round_number, name), group in known.groupby(["round", "set"], sort=True):
        for level, contrast, measure, numbers in _of_round(group, measures):
            place = {"round": round_number, "level": level, "set": name, "measure": measure, "contrast": contrast}
            rows.append({**place, **numbers, "note": _NOTES[contrast]})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_round(group: pd.DataFrame, measures: Sequence[str]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    local, whole = group[group["level"] == "local"], group[group["level"] == "global"]
    at_owner = local[local["client"] == local["owner"]]
    elsewhere = local[local["client"] != local["owner"]]
    for measure in measures:
        if group[measure].isna().all():
            continue
        own = at_owner.set_index("subject")[["owner", "included", measure]]
        gap = own[measure] - elsewhere.groupby("subject")[measure].mean()
        gap = gap.reindex(own.index)
        for contrast, chosen in ((OWNERS_IN, own["included"]), (OWNERS_OUT, ~own["included"].astype(bool))):
            values = gap[chosen.astype(bool)].dropna()
            if len(values):
                owners = own["owner"].reindex(values.index)
                yield "local", contrast, measure, _mean(values.to_numpy(np.float64), owners.astype(str).to_numpy())
        for level, rows in (("local", at_owner), ("global", whole)):
            inside, outside = (rows[rows["included"] == side][measure].dropna().to_numpy(np.float64) for side in (1, 0))
            if len(inside) and len(outside):
                value, low, high = student(inside, outside)
                if len(inside) + len(outside) < FEWEST:
                    low = high = math.nan
                n, clients = len(inside) + len(outside), rows["owner"].nunique()
                yield level, COINS, measure, {"value": value, "low": low, "high": high, "n": n, "clients": clients}


def _mean(values: FloatArray, owners: np.ndarray[Any, Any]) -> dict[str, Any]:
    names = np.unique(owners)
    low = high = math.nan
    if len(names) >= FEWEST:
        without = np.array([values[owners != name].mean() for name in names])
        low, high = jackknife(float(values.mean()), without)
    elif len(values) >= FEWEST:
        low, high = student_mean(values)
    return {"value": float(values.mean()), "low": low, "high": high, "n": len(values), "clients": len(names)}
