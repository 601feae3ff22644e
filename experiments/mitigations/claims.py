"""The claims: does each mitigation lower each measure at equal accuracy? They were fixed before seeds 1 to 5 were run.

Levels of accuracy follow from the accuracy of the reference on seed 0, which is in no table, and from nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from experiments.mitigations.analysis import (
    ACCURACY,
    GAIN,
    LEVELS,
    MEMORY,
    OF_KIND,
    ONE,
    SERIES,
    UNADAPTED,
    WORST,
    WORST_BEFORE,
    Key,
    arrays_of,
    curve,
)
from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.statistics import holm
from fedmem.studies.contrasts import Contrast, contrast
from fedmem.studies.experiment import verdict_after_holm
from fedmem.studies.matched import NOT_COMPLETE, NOT_REACHED, NOT_RISING, Curve, MatchedDifference, difference_at

REFERENCE = "none"
BY_LOSS, AT_RANDOM = "rows left out by loss", "rows left out at random"

FINAL = {"digits": 0.9497, "fashion_mnist": 0.8210}
"""Test accuracy of the reference after the last round of seed 0."""

SHARES = (0.9, 0.97, 0.99)
"""Shares of this accuracy at which mitigations are compared."""

MAIN = 0.97
"""The share at which claims have verdicts."""

CLAIMED = {
    MEMORY: "lowers memorisation",
    WORST: "lowers memorisation of the most vulnerable",
    SERIES: "lowers the AUC of LiRA over rounds",
}
"""Measures that have verdicts, and the claim about each."""

MEASURES = (MEMORY, *(f"{MEMORY} {words}" for words in OF_KIND.values()), WORST, WORST_BEFORE, ONE, SERIES, UNADAPTED)
"""All measures that are compared."""

LAST = "last round"

_NO_ANSWER = {"": "", NOT_REACHED: "not reached", NOT_RISING: "not rising", NOT_COMPLETE: "undefined"}
"""Why there is no answer, in the words of tables."""


def accuracy_of(data: str, share: float) -> float:
    """The level of accuracy of a data set.

    >>> round(accuracy_of("digits", 0.97), 3)
    0.921
    """
    return share * FINAL[data]


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim for each data set and level: by how much a measure is lower at the main level of accuracy.

    `mean` is the reference minus the mitigation, above 0 where the claim holds, with Student's 95 % interval over seeds
    and p. `holm` is p adjusted for all rows of the table. A claim holds or is contradicted where the interval is on one
    side of 0 and `holm` is below .05. It is `not reached` where the mitigation does not come to this accuracy, and
    `not rising` where accuracy hardly rises around it.

    Args:
        values: One row a value: data, arm, seed, what, level, round, value.
    """
    arrays = arrays_of(values)
    rows = pd.DataFrame(
        [
            {
                "data": data,
                "claim": words,
                "arm": arm,
                "measure": measure,
                "level": level,
                "accuracy": accuracy,
                **found,
            }
            for data in values.data.unique()
            for accuracy in [accuracy_of(data, MAIN)]
            for words, arm, other, measure in _claims(set(values[values.data == data].arm))
            for level in LEVELS
            for found in [_row(matched_difference(arrays, data, arm, other, measure, level, accuracy))]
        ]
    )
    rows = rows.assign(holm=holm(rows.p.to_numpy(dtype=np.float64)))
    ends = zip(rows.low, rows.high, rows.holm, rows.reason, strict=True)
    return rows.assign(verdict=[answer_after_holm(*of) for of in ends])


def _claims(arms: set[str]) -> Iterator[tuple[str, str, str, str]]:
    """Words, mitigation, what it is compared with, and measure; of the mitigations that were run."""
    for measure, words in CLAIMED.items():
        for arm in [name for name in ARM_ORDER if name in arms]:
            yield f"{arm}: {words}", arm, REFERENCE, measure
        if {BY_LOSS, AT_RANDOM} <= arms:
            yield f"{BY_LOSS}: {words} more than at random", BY_LOSS, AT_RANDOM, measure


ARM_ORDER = (
    "weight decay",
    "proximal term",
    "tied units",
    "deduplication",
    BY_LOSS,
    AT_RANDOM,
    "clipped updates",
    "noise of clients, small",
    "noise of clients, moderate",
    "noise of the server, small",
    "noise of the server, moderate",
    "clipped rows",
    "noise on rows, small",
    "noise on rows, moderate",
    "trimmed mean",
    "median",
)
"""All mitigations, in the order of tables."""


def answer_after_holm(low: float, high: float, adjusted: float, reason: str) -> str:
    """The verdict of an interval if p is significant after adjustment too, or why there is no answer.

    >>> answer_after_holm(0.1, 0.3, 0.01, ""), answer_after_holm(0.1, 0.3, 0.2, "")
    ('holds', 'not significant')
    >>> answer_after_holm(math.nan, math.nan, math.nan, "not reached")
    'not reached'
    """
    return reason or verdict_after_holm(low, high, adjusted)


def matched_difference(
    arrays: Mapping[Key, FloatArray], data: str, arm: str, other: str, measure: str, level: str, accuracy: float
) -> MatchedDifference:
    """By how much a measure of `arm` is below that of `other` at the same accuracy; none unless all seeds count."""
    first, second = (curve(arrays, data, name, measure, level) for name in (other, arm))
    return _of_all_seeds(difference_at(first, second, accuracy), len(first.utility))


def _of_all_seeds(found: MatchedDifference, seeds: int) -> MatchedDifference:
    """The same, or no answer where a seed has no complete curve, such as that of a model that diverged."""
    if found.reason or found.difference.n == seeds:
        return found
    none = Contrast(value=math.nan, low=math.nan, high=math.nan, p=math.nan, sd=math.nan, n=found.difference.n)
    return replace(found, difference=none, reason=NOT_COMPLETE)


def at_levels(values: pd.DataFrame) -> pd.DataFrame:
    """All measures of all arms where they reach each level of accuracy, with the interval over seeds."""
    arrays = arrays_of(values)
    rows = []
    for data, arm, share in _cells(values, SHARES):
        for measure in (*MEASURES, GAIN):
            for level in LEVELS:
                of = curve(arrays, data, arm, measure, level)
                # the difference to a curve of the same accuracy that is 0 everywhere
                zero = Curve(utility=of.utility, quantity=np.zeros_like(of.quantity))
                found = _of_all_seeds(difference_at(of, zero, accuracy_of(data, share)), len(of.utility))
                key = {"data": data, "arm": arm, "at": str(share), "what": measure, "level": level}
                rows.append({**key, "accuracy": accuracy_of(data, share), **_row(found)})
    return pd.DataFrame(rows).drop(columns="p")


def differences(values: pd.DataFrame) -> pd.DataFrame:
    """By how much each mitigation lowers each measure: at each level of accuracy, and after as many rounds.

    Intervals and p are not adjusted, and rows have no verdict. `accuracy` after the last round is undefined, since the
    mitigation and the reference differ in it.
    """
    arrays = arrays_of(values)
    rows = []
    for data, arm, share in _cells(values, SHARES):
        for measure in MEASURES if arm != REFERENCE else ():
            for level in LEVELS:
                accuracy = accuracy_of(data, share)
                key = {"data": data, "arm": arm, "at": str(share), "what": measure, "level": level}
                found = matched_difference(arrays, data, arm, REFERENCE, measure, level, accuracy)
                rows.append({**key, "accuracy": accuracy, **_row(found)})
    for data, arm, _ in _cells(values, (1.0,)):
        for measure in (*MEASURES, ACCURACY) if arm != REFERENCE else ():
            for level in LEVELS if measure != ACCURACY else ("global",):
                key = {"data": data, "arm": arm, "at": LAST, "what": measure, "level": level}
                rows.append({**key, "accuracy": math.nan, **_after_last_round(arrays, data, arm, measure, level)})
    return pd.DataFrame(rows)


def _cells(values: pd.DataFrame, shares: Sequence[float]) -> Iterator[tuple[str, str, float]]:
    """Data set, arm and share of accuracy; of those that were run."""
    for data in values.data.unique():
        arms = set(values[values.data == data].arm)
        for arm in [name for name in (REFERENCE, *ARM_ORDER) if name in arms]:
            for share in shares:
                yield data, arm, share


def _after_last_round(
    arrays: Mapping[Key, FloatArray], data: str, arm: str, measure: str, level: str
) -> dict[str, object]:
    """The reference minus the mitigation after the last round."""
    ends: list[FloatArray] = []
    for name in (REFERENCE, arm):
        ends.append(curve(arrays, data, name, measure, level).quantity[:, -1])
    both = np.stack(ends)
    usable = both if np.isfinite(both).all() else np.full_like(both, np.nan)
    found = MatchedDifference(level=math.nan, difference=contrast(usable[0], usable[1]), reaching=0)
    return _row(found)


def _row(found: MatchedDifference) -> dict[str, object]:
    """The columns of a difference."""
    of = found.difference
    interval = {"mean": of.value, "low": of.low, "high": of.high, "seeds": of.n, "p": of.p}
    return {**interval, "reason": _NO_ANSWER[found.reason]}
