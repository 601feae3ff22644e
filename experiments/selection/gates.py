"""Claims about selection, each as a difference that is above 0 if it holds, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.selection.analysis import ACCURACY, LIRA, MEMORY
from fedmem.studies.experiment import with_verdict


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The value of arm `more` − that of arm `less`, seed by seed, is above −`allowed`."""

    words: str
    what: str
    kind: str
    more: str
    less: str
    allowed: float = 0.0


def _lower(name: str, arm: str, than: str, kind: str) -> tuple[Claim, ...]:
    """The claims that an arm lowers memorisation and what LiRA finds of a kind."""
    words = f"{name}: {{}} of {kind} rows is lower than {'at random' if than == 'random' else 'with uniform sampling'}"
    return tuple(
        Claim(words=words.format(called), what=what, kind=kind, more=than, less=arm)
        for what, called in ((MEMORY, "memorisation"), (LIRA, "LiRA's AUC"))
    )


CLAIMS = (
    *_lower("left out by loss", "loss", "random", "mislabelled"),
    *_lower("left out by loss", "loss", "random", "isolated"),
    *_lower("left out by EL2N", "el2n", "random", "mislabelled"),
    *_lower("left out by EL2N", "el2n", "random", "isolated"),
    Claim(
        words="left out by loss: test accuracy is at most .02 below that at random",
        what=ACCURACY,
        kind="",
        more="loss",
        less="random",
        allowed=0.02,
    ),
    Claim(
        words="left out by loss: LiRA's AUC of typical rows is higher than at random (onion effect)",
        what=LIRA,
        kind="typical",
        more="loss",
        less="random",
    ),
    Claim(
        words="left out by loss: memorisation of typical rows is higher than at random (onion effect)",
        what=MEMORY,
        kind="typical",
        more="loss",
        less="random",
    ),
    *_lower("wary sampler", "wary", "uniform", "mislabelled"),
    Claim(
        words="wary sampler: LiRA's AUC of typical rows is higher than with uniform sampling (onion effect)",
        what=LIRA,
        kind="typical",
        more="wary",
        less="uniform",
    ),
    Claim(
        words="wary sampler: test accuracy is at most .02 below that with uniform sampling",
        what=ACCURACY,
        kind="",
        more="wary",
        less="uniform",
        allowed=0.02,
    ),
)
"""The claims, chosen on seed 0, which is in no table."""


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim at each level: the mean difference over seeds, Student's 95 % interval and a verdict.

    A difference is undefined unless every seed has one. Intervals are not adjusted for the number of claims.

    Args:
        values: One row a value: what, kind, level, arm, seed, value.
    """
    rows = []
    for claim in CLAIMS:
        asked = values[(values.what == claim.what) & (values.kind == claim.kind)]
        for level in ("local", "global"):
            both = [
                asked[(asked.arm == arm) & (asked.level == level)].set_index("seed")["value"].sort_index()
                for arm in (claim.more, claim.less)
            ]
            if not any(part.empty for part in both):
                gap = (both[0] - both[1]).to_numpy(dtype=np.float64) + claim.allowed
                rows.append({"claim": claim.words, "level": level, **with_verdict(gap)})
    return pd.DataFrame(rows)
