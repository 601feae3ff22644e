"""Claims about samples of generative models, each as a difference that is above 0 if it holds, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.generative.analysis import AUTHENTICITY, C_T, DENSITY, DISTANCE, EXTRACTED, KINDS, LIRA, NEAREST
from fedmem.studies.experiment import with_verdict


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`sign` · (value − `null`), seed by seed, is above 0; with `less`, that quantity takes the place of the null."""

    words: str
    what: str
    kind: str
    sign: float = 1.0
    null: float = 0.0
    less: str = ""


_COPIES = {"once": "an image of 1 copy", "four": "an image of 4 copies", "sixteen": "an image of 16 copies"}

CLAIMS = (
    *(Claim(words=f"training on {_COPIES[kind]} raises its log density", what=DENSITY, kind=kind) for kind in KINDS),
    *(Claim(words=f"samples come nearer to {_COPIES[kind]}", what=DISTANCE, kind=kind, sign=-1.0) for kind in KINDS),
    Claim(words="images of 16 copies are extracted more often than by chance", what=EXTRACTED, kind="sixteen"),
    *(Claim(words=f"the nearest sample reveals {_COPIES[kind]}", what=NEAREST, kind=kind, null=0.5) for kind in KINDS),
    Claim(words="LiRA finds more of 16 copies than the nearest sample", what=LIRA, kind="sixteen", less=NEAREST),
    Claim(words="C_T is lower in than out for 16 copies", what=C_T, kind="sixteen", sign=-1.0),
    Claim(words="authenticity is lower in than out for 16 copies", what=AUTHENTICITY, kind="sixteen", sign=-1.0),
)
"""The claims, chosen on seed 0, which is in no table."""


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim at each level: the mean over seeds, Student's 95 % interval and a verdict.

    A value is undefined unless every seed has one. Intervals are not adjusted for the number of claims.

    Args:
        values: One row a value: what, kind, level, seed, value.
    """
    rows = []
    for claim in CLAIMS:
        of_kind = values[values.kind == claim.kind]
        for level in ("local", "global"):
            parts = [
                of_kind[(of_kind.what == what) & (of_kind.level == level)].set_index("seed")["value"].sort_index()
                for what in (claim.what, claim.less)
            ]
            if parts[0].empty or (claim.less and parts[1].empty):
                continue
            other = parts[1] if claim.less else claim.null
            gap = claim.sign * (parts[0] - other).to_numpy(dtype=np.float64)
            rows.append({"claim": claim.words, "level": level, **with_verdict(gap)})
    return pd.DataFrame(rows)
