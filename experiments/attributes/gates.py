"""Claims about attribute inference, each as a difference that is above 0 if it holds, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.attributes.analysis import AGREEMENT, GAIN, IN, quantity
from fedmem.studies.experiment import with_verdict

MARITAL, WITHOUT, RACE, SEX = "marital status", "marital status, relationship unknown", "race", "sex"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The value of `more` − that of `less`, seed by seed, is above −`allowed`; without one of them, that counts 0.

    `more` and `less` are an arm and a quantity, of the kind `kind`.
    """

    words: str
    kind: str
    more: tuple[str, str] | None = None
    less: tuple[str, str] | None = None
    allowed: float = 0.0


def _gains(arm: str, kind: str, name: str) -> tuple[Claim, ...]:
    """The claims that training on records raises the guesses of their attribute."""
    return tuple(
        Claim(words=f"{arm}: {called} of {name} has a gain", kind=kind, more=(arm, quantity(guess, GAIN)))
        for guess, called in (("csmia", "CSMIA"), ("exposure", "the exposure"))
    )


CLAIMS = (
    *_gains(MARITAL, "random_row", "random rows"),
    *_gains(MARITAL, "mislabelled", "wrong labels"),
    Claim(
        words=f"{MARITAL}: the gain of CSMIA of typical rows is at most .05",
        kind="typical",
        less=(MARITAL, quantity("csmia", GAIN)),
        allowed=0.05,
    ),
    Claim(
        words=f"{MARITAL}: CSMIA is right about typical rows more often than the mode",
        kind="typical",
        more=(MARITAL, quantity("csmia", IN)),
        less=(MARITAL, "mode"),
    ),
    Claim(
        words=f"{MARITAL}: imputation is right about typical rows more often than CSMIA",
        kind="typical",
        more=(MARITAL, "imputed"),
        less=(MARITAL, quantity("csmia", IN)),
    ),
    Claim(
        words=f"{MARITAL}: imputation from 50 rows is right about typical rows more often than CSMIA",
        kind="typical",
        more=(MARITAL, "imputed_50"),
        less=(MARITAL, quantity("csmia", IN)),
    ),
    Claim(
        words=f"{MARITAL}: imputation of typical rows is right more often where relationship is known",
        kind="typical",
        more=(MARITAL, "imputed"),
        less=(WITHOUT, "imputed"),
    ),
    Claim(
        words=f"{MARITAL}: the exposure gain agrees with memorisation among random rows",
        kind="random_row",
        more=(MARITAL, AGREEMENT),
    ),
    *_gains(WITHOUT, "random_row", "random rows"),
    *_gains(RACE, "random_row", "random rows"),
    *_gains(SEX, "random_row", "random rows"),
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
        asked = values[values.kind == claim.kind]
        for level in ("local", "global"):
            parts = [(sign, key) for sign, key in ((1.0, claim.more), (-1.0, claim.less)) if key is not None]
            found = [
                sign
                * asked[(asked.arm == arm) & (asked.what == what) & (asked.level == level)]
                .set_index("seed")["value"]
                .sort_index()
                for sign, (arm, what) in parts
            ]
            if not any(part.empty for part in found):
                gap = sum(found, start=pd.Series(claim.allowed, index=found[0].index))
                rows.append({"claim": claim.words, "level": level, **with_verdict(np.asarray(gap, dtype=np.float64))})
    return pd.DataFrame(rows)
