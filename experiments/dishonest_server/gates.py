"""Claims about dishonest servers, each as a difference that is above 0 if it holds, with its verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.dishonest_server.analysis import ACTIVATION, ASCENT, EXPECTED, HONEST, IMPRINT, IN_OUT, PASSIVE, TRAP
from fedmem.contracts.arrays import FloatArray
from fedmem.studies.experiment import with_verdict

Get = Callable[[str, str], FloatArray]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`gap` of the values of each seed is above 0. It is given the values of an arm and a quantity at one level."""

    words: str
    gap: Callable[[Get], FloatArray]
    levels: tuple[str, ...] = ("local", "global")


def _falls(arm: str, what: str) -> Callable[[Get], FloatArray]:
    """By how much an arm lowers a quantity."""
    return lambda of: of("one step", what) - of(arm, what)


def _exceeds(what: str, other: str) -> Callable[[Get], FloatArray]:
    """By how much one quantity is larger than another after one step."""
    return lambda of: of("one step", what) - of("one step", other)


_MESSAGE = ("local",)


CLAIMS = (
    Claim(words="imprint reads rows: in − out", gap=lambda of: of("one step", IMPRINT + IN_OUT)),
    Claim(
        words="imprint differs from its formula by less than .05",
        gap=lambda of: 0.05 - np.abs(of("one step", IMPRINT) - of("one step", IMPRINT + EXPECTED)),
    ),
    Claim(
        words="trap weights differ from their formula by less than .05",
        gap=lambda of: 0.05 - np.abs(of("one step", TRAP) - of("one step", TRAP + EXPECTED)),
    ),
    Claim(
        words="imprint reads more than the real message",
        gap=_exceeds(IMPRINT, HONEST),
    ),
    Claim(
        words="trap weights read more than the real message",
        gap=_exceeds(TRAP, HONEST),
    ),
    Claim(words="imprint reads less after five steps of 16 rows", gap=_falls("five small steps", IMPRINT)),
    Claim(words="imprint reads less after twenty steps of 16 rows", gap=_falls("twenty small steps", IMPRINT)),
    Claim(
        words="after twenty steps of 16 rows imprint still reads rows", gap=lambda of: of("twenty small steps", IMPRINT)
    ),
    Claim(
        words="twenty steps on all rows change the share of imprint by less than .05",
        gap=lambda of: 0.05 - np.abs(of("one step", IMPRINT) - of("twenty whole steps", IMPRINT)),
    ),
    Claim(words="imprint reads less where clients have twice as many rows", gap=_falls("more rows", IMPRINT)),
    Claim(
        words="clipping changes the share of imprint by less than .05",
        gap=lambda of: 0.05 - np.abs(of("one step", IMPRINT) - of("clipped", IMPRINT)),
    ),
    Claim(words="weak noise leaves less than .01 of rows exact", gap=lambda of: 0.01 - of("weak noise", IMPRINT)),
    Claim(words="noise leaves less than .01 of rows exact", gap=lambda of: 0.01 - of("noise", IMPRINT)),
    Claim(words="one unit reveals members: in − out", gap=lambda of: of("one step", ACTIVATION), levels=_MESSAGE),
    Claim(
        words="one unit reveals members after twenty steps of 16 rows",
        gap=lambda of: of("twenty small steps", ACTIVATION),
        levels=_MESSAGE,
    ),
    Claim(
        words="one unit reveals members of clipped messages", gap=lambda of: of("clipped", ACTIVATION), levels=_MESSAGE
    ),
    Claim(
        words="with noise, one unit reveals less than .05 of members",
        gap=lambda of: 0.05 - np.abs(of("noise", ACTIVATION)),
        levels=_MESSAGE,
    ),
    Claim(words="the fall of the loss reveals members", gap=lambda of: of("one step", PASSIVE) - 0.5, levels=_MESSAGE),
    Claim(words="ascent reveals members", gap=lambda of: of("one step", ASCENT) - 0.5, levels=_MESSAGE),
    Claim(
        words="ascent reveals more than the fall of the loss",
        gap=_exceeds(ASCENT, PASSIVE),
        levels=_MESSAGE,
    ),
)
"""The claims, chosen on seed 0, which is in no table."""


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim on each data set at each level: the mean over seeds, Student's 95 % interval and a verdict.

    At the level `global` the server sees the sum of all clients of a round. A value is undefined unless every seed has
    one. Intervals are not adjusted for the number of claims.

    Args:
        values: One row a value: data, arm, what, level, seed, value.
    """
    cells = values.set_index(["data", "arm", "what", "level", "seed"])["value"].sort_index()
    rows = []
    for claim in CLAIMS:
        for data in values.data.unique():
            for level in claim.levels:

                def of(arm: str, what: str, data: str = data, level: str = level) -> FloatArray:
                    return np.asarray(cells.loc[data, arm, what, level], dtype=np.float64)

                try:
                    gap = claim.gap(of)
                except KeyError:
                    gap = np.array([np.nan])
                rows.append({"claim": claim.words, "data": data, "level": level, **with_verdict(gap)})
    return pd.DataFrame(rows)
