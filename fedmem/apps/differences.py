"""Results of one run of an app: models of owners minus those of others of the same round, and the aggregate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.statistics import jackknife, student, student_mean, wilson
from fedmem.estimation.two_way import FEWEST

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("round", "level", "set", "measure", "contrast", "value", "low", "high", "n", "clients", "note")

OWNERS_IN, OWNERS_OUT, COINS = "owners - others, in", "owners - others, out", "in - out"
AGGREGATE_IN, AGGREGATE_OUT, NULL = "aggregate, in", "aggregate, out", "null"

_SHARES = frozenset(("correct", "identified"))
"""Measures of which each example has 0 or 1."""

_NOTES = {
    OWNERS_IN: "a difference between clients, not memorisation",
    OWNERS_OUT: "the same difference without planting",
    COINS: "causal only if inclusion was random",
    AGGREGATE_IN: "the value itself, no difference: memorised or easy",
    AGGREGATE_OUT: "the value without planting: what included examples have without memorisation",
    NULL: "expected where examples are exchangeable with the references",
}


def summarise(frame: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Differences of each observed round, with 95 % intervals.

    - `owners - others, in` (local): for each held example, the value at its owner minus the mean over the other clients
      of the round. The result is the mean over examples. With eight or more owners the interval is over owners,
      otherwise over examples, as examples of these clients.
    - `owners - others, out` (local): the same for examples that an assignment left out. Nobody trained on them, so the
      difference shows how much clients differ anyway.
    - `in - out` (local at the owners, and global): mean over included examples minus mean over those left out, with
      Welch's interval over examples.

    - `aggregate, in` and `aggregate, out` (global): the mean of the global model over the included examples, and over
      those left out. Neither is a difference. `aggregate, out` is the null where inclusion was random.
    - `null` (global, exposure): the mean exposure of examples that are exchangeable with their references.

    `n` counts examples, `clients` their owners. An interval is NaN with fewer than eight examples, except Wilson's of a
    share. Means of `correct` and `identified` are shares in 0..1, and their differences lie in -1..1.
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
                numbers = _mean(values.to_numpy(np.float64), owners.astype(str).to_numpy())
                yield "local", contrast, measure, _clip_difference(numbers, is_share=measure in _SHARES)
        for level, rows in (("local", at_owner), ("global", whole)):
            inside, outside = (rows[rows["included"] == side][measure].dropna().to_numpy(np.float64) for side in (1, 0))
            is_share = measure in _SHARES
            for contrast, side_values in ((AGGREGATE_IN, inside), (AGGREGATE_OUT, outside)):
                if level == "global" and len(side_values):
                    side_owners = rows[rows["included"] == (contrast == AGGREGATE_IN)].dropna(subset=[measure])["owner"]
                    yield level, contrast, measure, _level(side_values, side_owners.nunique(), is_share=is_share)
            if len(inside) and len(outside):
                value, low, high = student(inside, outside)
                if len(inside) + len(outside) < FEWEST:
                    low = high = math.nan
                n, clients = len(inside) + len(outside), rows["owner"].nunique()
                numbers = {"value": value, "low": low, "high": high, "n": n, "clients": clients}
                yield level, COINS, measure, _clip_difference(numbers, is_share=is_share)
        if measure == "exposure" and "references" in whole and len(whole):
            nulls = whole.dropna(subset=[measure])["references"].map(_expected_exposure)
            numbers = {"value": float(nulls.mean()), "low": math.nan, "high": math.nan, "n": len(nulls)}
            yield "global", NULL, measure, {**numbers, "clients": whole["owner"].nunique()}


def _level(values: FloatArray, clients: int, *, is_share: bool) -> dict[str, Any]:
    """The mean itself, of a share with Wilson's interval."""
    low = high = math.nan
    if is_share:
        low, high = (float(end) for end in wilson(values.sum(), len(values)))
    elif len(values) >= FEWEST:
        low, high = student_mean(values)
    return {"value": float(values.mean()), "low": low, "high": high, "n": len(values), "clients": clients}


def _clip_difference(numbers: dict[str, Any], *, is_share: bool) -> dict[str, Any]:
    """The same; the interval of a difference of shares holds nothing impossible. NaN stays NaN."""
    if not is_share:
        return numbers
    return {**numbers, **{end: float(np.clip(numbers[end], -1.0, 1.0)) for end in ("low", "high")}}


def _expected_exposure(references: int) -> float:
    """Bits that an example has on average whose rank among so many references is any with equal probability.

    >>> round(_expected_exposure(3), 3)
    0.854
    """
    ranks = np.arange(1, references + 2)
    return float(np.log2((references + 1) / ranks).mean())


def _mean(values: FloatArray, owners: np.ndarray[Any, Any]) -> dict[str, Any]:
    names = np.unique(owners)
    low = high = math.nan
    if len(names) >= FEWEST:
        without = np.array([values[owners != name].mean() for name in names])
        low, high = jackknife(float(values.mean()), without)
    elif len(values) >= FEWEST:
        low, high = student_mean(values)
    return {"value": float(values.mean()), "low": low, "high": high, "n": len(values), "clients": len(names)}
