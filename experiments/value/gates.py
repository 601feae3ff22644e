"""Claims about values, each as a difference that is above 0 if it holds, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.proxies.analysis import KIND, WRONG
from experiments.value.analysis import MEMORY, RETRAINING, SPLIT, VALUE
from fedmem.studies.experiment import with_verdict


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`sign` × (the value of `more` − that of `less`, or 0) is above 0, each of these a pair of what and of whom."""

    words: str
    part: str
    more: tuple[str, str]
    less: tuple[str, str] | None = None
    sign: float = 1.0


CLAIMS = (
    *(
        Claim(
            words=f"wrong labels have a lower {name} value than ordinary examples",
            part=part,
            more=(VALUE, KIND),
            less=(VALUE, WRONG),
        )
        for part, name in (("banzhaf", "Banzhaf"), ("shapley", "Shapley"))
    ),
    *(
        Claim(words=f"wrong labels have a {name} value below 0", part=part, more=(VALUE, WRONG), sign=-1.0)
        for part, name in (("banzhaf", "Banzhaf"), ("shapley", "Shapley"))
    ),
    Claim(
        words="wrong labels are memorised more than ordinary examples",
        part="banzhaf",
        more=(MEMORY, WRONG),
        less=(MEMORY, KIND),
    ),
    Claim(words="among ordinary examples, the valuable ones are memorised more", part="banzhaf", more=(SPLIT, KIND)),
    Claim(words="among wrong labels, the valuable ones are memorised more", part="banzhaf", more=(SPLIT, WRONG)),
    Claim(
        words="GTG-Shapley ranks clients as retraining does",
        part="clients",
        more=(RETRAINING, "gtg"),
    ),
    Claim(
        words="leaving clients out of the sum ranks clients as retraining does",
        part="clients",
        more=(RETRAINING, "leave_one_out"),
    ),
    Claim(
        words="the influence of Xue et al. ranks clients as retraining does",
        part="clients",
        more=(RETRAINING, "fed_influence_diagonal"),
    ),
    Claim(
        words="GTG-Shapley ranks clients better than leaving them out of the sum",
        part="clients",
        more=(RETRAINING, "gtg"),
        less=(RETRAINING, "leave_one_out"),
    ),
)
"""The claims, chosen on seed 0, which is in no table."""


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim at each level: the mean difference over seeds, Student's 95 % interval and a verdict.

    A difference is undefined unless every seed has one. Intervals are not adjusted for the number of claims.

    Args:
        values: One row a value: part, what, of, level, seed, value.
    """
    rows = []
    for claim in CLAIMS:
        for level in ("local", "global"):
            asked = values[(values.part == claim.part) & (values.level == level)]
            more = _of_seeds(asked, claim.more)
            less = pd.Series(0.0, more.index) if claim.less is None else _of_seeds(asked, claim.less)
            if not more.empty and not less.empty:
                gap = claim.sign * (more - less).to_numpy(dtype=np.float64)
                rows.append({"claim": claim.words, "level": level, **with_verdict(gap)})
    return pd.DataFrame(rows)


def _of_seeds(values: pd.DataFrame, wanted: tuple[str, str]) -> pd.Series:
    rows = values[(values.what == wanted[0]) & (values["of"] == wanted[1])]
    return rows.set_index("seed")["value"].sort_index()
