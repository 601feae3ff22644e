"""Published claims about proxies, each as a difference that is positive if the claim holds, with its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.proxies.analysis import LAST
from fedmem.studies.experiment import with_verdict

SLOW = "digits_slow"
"""The data set of which each round is one local epoch."""

_CLOCKS: Mapping[str, str] = {"local": "clock=participations", "global": "clock=rounds"}
"""The clock of trajectories at each level."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """Which value of a seed a claim is about: an agreement in size, or an area for wrong labels."""

    proxy: str
    question: str = "agreement"
    statistic: str = "in"
    round: int = LAST


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`more` − `less` > 0, or with `within`, that `more` is so near to `less`; `data` are those that it is about."""

    words: str
    more: Value
    less: Value | float
    within: float | None = None
    is_slow: bool = False
    levels: tuple[str, ...] = ("local", "global")


def _better(name: str, proxy: str) -> Claim:
    """The claim that a proxy ranks examples better than the final loss of models that trained on them."""
    return Claim(
        words=f"{name} ranks examples as memorisation does better than the final loss",
        more=Value(proxy=proxy),
        less=Value(proxy="loss"),
    )


def _area(proxy: str, round_number: int = LAST) -> Value:
    return Value(proxy=proxy, question="wrong labels", round=round_number)


CLAIMS = (
    _better("cumulative loss", "cumulative_loss"),
    _better("forgetting", "forgetting"),
    _better("loss sensitivity", "loss_sensitivity"),
    _better("curvature", "curvature_exact"),
    Claim(
        words="difficulty (loss without the example) ranks better than the loss with it",
        more=Value(proxy="loss", statistic="out"),
        less=Value(proxy="loss"),
    ),
    Claim(
        words="what training on an example adds to its loss ranks better than its difficulty",
        more=Value(proxy="loss", statistic="gain"),
        less=Value(proxy="loss", statistic="out"),
    ),
    Claim(words="cumulative loss finds wrong labels, area above .9", more=_area("cumulative_loss"), less=0.9),
    Claim(words="curvature finds wrong labels, area above ½", more=_area("curvature_exact"), less=0.5),
    Claim(
        words="the round of first learning is chance for wrong labels, area within .1 of ½",
        more=_area("first_learning"),
        less=0.5,
        within=0.1,
    ),
    Claim(
        words="EL2N of early rounds finds wrong labels, area above .9",
        more=_area("el2n", 2),
        less=0.9,
        levels=("global",),
    ),
    Claim(
        words="curvature is chance for wrong labels after five epochs, area within .1 of ½",
        more=_area("curvature_exact", 5),
        less=0.5,
        within=0.1,
        is_slow=True,
    ),
    Claim(
        words="curvature finds wrong labels better after forty epochs than after five",
        more=_area("curvature_exact", 40),
        less=_area("curvature_exact", 5),
        is_slow=True,
    ),
)
"""The claims, chosen before the seeds of the tables were trained."""


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim at each data set and level: the mean difference over seeds, Student's 95 % interval and a verdict.

    A difference is undefined unless every seed has one. Intervals are not adjusted for the number of claims.

    Args:
        values: One row a value: data, level, seed, question, round, proxy, statistic, value.
    """
    rows = []
    for claim in CLAIMS:
        for data, of_data in values.groupby("data", sort=False):
            if claim.is_slow != (data == SLOW):
                continue
            for level in claim.levels:
                of_place = of_data[of_data.level == level]
                gap = _difference(of_place, claim, level)
                if gap is None:
                    continue
                rows.append({"claim": claim.words, "data": data, "level": level, **with_verdict(gap)})
    return pd.DataFrame(rows)


def _difference(values: pd.DataFrame, claim: Claim, level: str) -> np.ndarray | None:
    """One value a seed; None where the data have no such proxy."""
    more = _of_seeds(values, claim.more, level)
    if more is None:
        return None
    if isinstance(claim.less, Value):
        less = _of_seeds(values, claim.less, level)
        if less is None:
            return None
    else:
        less = pd.Series(claim.less, more.index)
    gap = (more - less).to_numpy(dtype=np.float64)
    return gap if claim.within is None else claim.within - np.abs(gap)


def _of_seeds(values: pd.DataFrame, wanted: Value, level: str) -> pd.Series | None:
    names = (wanted.proxy, f"{wanted.proxy} {_CLOCKS[level]}")
    rows = values[
        (values.question == wanted.question)
        & values.proxy.isin(names)
        & (values.statistic == wanted.statistic)
        & (values["round"] == wanted.round)
    ]
    if rows.empty:
        return None
    found = rows.set_index("seed")["value"].sort_index()
    return found.abs() if wanted.question == "agreement" else found
