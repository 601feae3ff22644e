"""Claims of a study: differences that are above 0 if a claim holds, tested over seeds at both levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.statistics import holm
from fedmem.studies.contrasts import contrast
from fedmem.studies.experiment import verdict

if TYPE_CHECKING:
    import pandas as pd

LEVELS = ("local", "global")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A value of each seed is above a null, or above another value of the same seed.

    Columns of a table of values choose it, as in `{"what": "memorisation", "kind": "typical"}`. The level is one of
    them, and is that of the row of the claim where it is not given.

    Attributes:
        words: The claim in a sentence without capital letter and full stop.
        more: Columns that choose the value of each seed.
        less: Columns that choose the other value, if there is one. Columns that are not named are as in `more`.
        null: What the difference is compared with.
        sign: −1 where the claim holds if the difference is below the null.
        levels: The levels at which it is tested.
    """

    words: str
    more: Mapping[str, str | int | float]
    less: Mapping[str, str | int | float] | None = None
    null: float = 0.0
    sign: float = 1.0
    levels: Sequence[str] = LEVELS


def claim_table(values: pd.DataFrame, claims: Sequence[Claim], by: Sequence[str] = ("data",)) -> pd.DataFrame:
    """Each claim at each of its levels and in each group of `by`, over seeds.

    The value of a row is sign · (more − less − null), its mean over seeds with Student's 95 % interval and two-sided p.
    `holm` is p adjusted for all rows of the table (Holm, 1979). `verdict` is that of the interval alone, which is
    not adjusted. Values are undefined unless every seed of the group has both, and with a single seed. Claims without
    any value, such as those about arms that were not run, have no row.

    Args:
        values: One row a value: `level`, `seed`, `value`, the columns of `by`, and those that the claims name.
        claims: What is tested.
        by: Columns whose groups are tested one by one.

    Returns:
        One row a test: the columns of `by`, `claim`, `level`, `mean`, `low`, `high`, `seeds`, `p`, `holm`, `verdict`.

    Errors: `ValueError` where columns choose several values of one seed.

    >>> import pandas as pd
    >>> values = pd.DataFrame({"level": "local", "data": "a", "seed": [0, 1, 2], "what": "x", "value": [0.1, 0.2, 0.3]})
    >>> row = claim_table(values, [Claim(words="x is above 0", more={"what": "x"})]).iloc[0]
    >>> row.claim, round(float(row["mean"]), 3), row.verdict
    ('x is above 0', 0.2, 'not significant')
    """
    import pandas as pd

    rows = [
        {**dict(zip(by, key, strict=True)), **row}
        for key, group in values.groupby(list(by), sort=False)
        for claim in claims
        for row in _rows_of(group, claim)
    ]
    columns = [*by, "claim", "level", "mean", "low", "high", "seeds", "p"]
    table = pd.DataFrame(rows, columns=columns)
    verdicts = [verdict(low, high) for low, high in zip(table.low, table.high, strict=True)]
    return table.assign(holm=holm(table.p.to_numpy(dtype=np.float64)), verdict=verdicts)


def _rows_of(values: pd.DataFrame, claim: Claim) -> Iterator[dict[str, str | float | int]]:
    """The rows of one claim, one at each level that has values."""
    seeds = sorted({int(seed) for seed in values.seed})
    for level in claim.levels:
        more = _by_seed(values, {"level": level, **claim.more}, seeds)
        if more is None:
            continue
        less = np.zeros(len(seeds))
        if claim.less is not None:
            found = _by_seed(values, {"level": level, **claim.more, **claim.less}, seeds)
            if found is None:
                continue
            less = found
        both = np.stack([claim.sign * (more - claim.null), claim.sign * less])
        complete = both if np.isfinite(both).all() else np.full_like(both, np.nan)
        of = contrast(complete[0], complete[1])
        counts = {"mean": of.value, "low": of.low, "high": of.high, "seeds": len(seeds), "p": of.p}
        yield {"claim": claim.words, "level": level, **counts}


def _by_seed(values: pd.DataFrame, columns: Mapping[str, str | int | float], seeds: list[int]) -> FloatArray | None:
    """The value of each seed (S,) that these columns choose, NaN where a seed has none; None where no seed has one."""
    chosen = values
    for column, value in columns.items():
        chosen = chosen[chosen[column] == value]
    if chosen.empty:
        return None
    if chosen.seed.duplicated().any():
        raise ValueError(f"several values of one seed have {dict(columns)}; name further columns")
    found: FloatArray = chosen.set_index("seed")["value"].reindex(seeds).to_numpy(dtype=np.float64)
    return found
