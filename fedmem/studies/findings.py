"""Findings: claims that are read from tables of several studies, with one rule for verdicts over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.measurement import Level
from fedmem.errors import Problem, ScenarioError
from fedmem.estimation.statistics import holm

if TYPE_CHECKING:
    import pandas as pd

HOLDS, FAILS, OPEN, UNDEFINED = "holds", "does not hold", "not significant", "undefined"

ALPHA = 0.05
"""The level of tests, and of the intervals in tables of studies."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A row of a table that says whether a claim holds: its value is above `null` if it does.

    The table has the 95 % interval of Student's t over seeds in `low` and `high`. For a value in the column NAME it may
    be in `NAME_low` and `NAME_high`. So p follows from the row.

    Attributes:
        study: The study whose table it is.
        data: The data set in words.
        level: Where it is measured.
        row: Columns that choose one row of the table.
        table: The name of the table.
        of: The column of the value.
        null: The value without an effect.
        sign: −1 where the claim holds if the value is below the null.
    """

    study: str
    data: str
    level: Level
    row: Mapping[str, str | int | float]
    table: str = "gates"
    of: str = "mean"
    null: float = 0.0
    sign: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim with its answers, at least one at each level unless `not_measured` says why there is none.

    Attributes:
        point: The section of the survey, such as `3.2a`.
        title: A few words.
        claim: One sentence without a full stop.
        answers: The rows that say whether it holds.
        not_measured: Level → why there is no answer.
    """

    point: str
    title: str
    claim: str
    answers: Sequence[Answer]
    not_measured: Mapping[Level, str]

    def __post_init__(self) -> None:
        for level in ("local", "global"):
            has_answer = any(answer.level == level for answer in self.answers)
            assert has_answer != (level in self.not_measured), (self.point, level)


def findings_table(findings: Sequence[Finding], folder: Path) -> pd.DataFrame:
    """All answers of all findings, tested together.

    With n seeds and an interval of width 2h, the standard error is h / t(0.975, n − 1). The two-sided p is that of
    Student's t for (value − null) / standard error. `holm` is p adjusted for all rows of the table (Holm, 1979), so
    that the chance of any false verdict is at most 5 %. Verdicts follow from `holm` and the sign:

    - `holds` and `does not hold` where `holm` is below 0.05;
    - `not significant` where it is not, which is no evidence of absence;
    - `undefined` without an interval.

    `mean`, `low` and `high` are those of sign · (value − null), and the interval is not adjusted. It may exclude 0
    where the verdict is `not significant`.

    Args:
        findings: The claims and where their answers are.
        folder: The folder of studies, with a folder of tables for each.

    Returns:
        One row an answer: point, title, claim, study, data, level, mean, low, high, seeds, p, holm, verdict.

    Errors: `ScenarioError` with every answer whose table is missing or whose columns do not choose one row.
    """
    import pandas as pd

    rows, problems = [], []
    for finding in findings:
        for answer in finding.answers:
            try:
                numbers = _numbers(answer, folder)
            except ValueError as error:
                problems.append(Problem(path="", message=str(error), source=f"finding {finding.point}, {answer.study}"))
                continue
            names = {"point": finding.point, "title": finding.title, "claim": finding.claim}
            places = {"study": answer.study, "data": answer.data, "level": answer.level}
            rows.append({**names, **places, **numbers})
    if problems:
        raise ScenarioError(problems)
    table = pd.DataFrame(rows)
    adjusted = holm(table.p.to_numpy(dtype=np.float64))
    verdicts = [_verdict(p, mean) for p, mean in zip(adjusted, table["mean"], strict=True)]
    return table.assign(holm=adjusted, verdict=verdicts)


def _numbers(answer: Answer, folder: Path) -> dict[str, float | int]:
    """Value, interval, seeds and p of one answer, above 0 if the claim holds. Errors: `ValueError`."""
    row = _row_of(answer, folder)
    value = (float(row[answer.of]) - answer.null) * answer.sign
    ends = [(float(row[name]) - answer.null) * answer.sign for name in _interval_columns(answer.of, row)]
    low, high = min(ends), max(ends)
    seeds = int(row["seeds"])
    return {"mean": value, "low": low, "high": high, "seeds": seeds, "p": p_of_interval(value, low, high, seeds)}


def _row_of(answer: Answer, folder: Path) -> pd.Series:
    """The row of an answer. Errors: `ValueError`."""
    import pandas as pd

    path = folder / answer.study / f"{answer.table}.csv"
    if not path.exists():
        raise ValueError(f"{path} is missing; run fedmem study run {answer.study} --results {path.parent}")
    table = pd.read_csv(path)
    for column, value in answer.row.items():
        if column not in table:
            raise ValueError(f"{path} has no column {column}; it has {', '.join(map(str, table))}")
        table = table[table[column] == value]
    if len(table) != 1:
        raise ValueError(f"{len(table)} rows of {path} have {dict(answer.row)}; name the columns that choose one")
    return table.iloc[0]


def _interval_columns(of: str, row: pd.Series) -> tuple[str, str]:
    """The columns of the interval of a value."""
    return (f"{of}_low", f"{of}_high") if f"{of}_low" in row else ("low", "high")


def p_of_interval(value: float, low: float, high: float, seeds: int) -> float:
    """The two-sided p of Student's t test against 0 whose 95 % interval this is; NaN without an interval.

    >>> from scipy.stats import ttest_1samp
    >>> test = ttest_1samp([1.0, 2.0, 4.0], 0.0)
    >>> interval = test.confidence_interval(0.95)
    >>> bool(abs(p_of_interval(7 / 3, interval.low, interval.high, 3) - test.pvalue) < 1e-12)
    True
    """
    from scipy.stats import t

    if math.isnan(low + high) or seeds < 2:
        return math.nan
    standard_error = (high - low) / 2 / t.ppf(1 - ALPHA / 2, seeds - 1)
    return float(2 * t.sf(abs(value) / standard_error, seeds - 1)) if standard_error > 0 else math.nan


def _verdict(adjusted: float, mean: float) -> str:
    """The verdict of an adjusted p and the sign of the effect."""
    if math.isnan(adjusted):
        return UNDEFINED
    if adjusted >= ALPHA:
        return OPEN
    return HOLDS if mean > 0 else FAILS


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One line a finding: its verdict at each level, over its answers there.

    The verdict of a level is the one that all its answers share. Where they differ it is `mixed`, such as one that
    holds and one that is not significant. `not measured` is a level without answers.

    >>> import pandas as pd
    >>> names = {"point": "1", "title": "a", "claim": "b", "level": ["local", "local"]}
    >>> summary(pd.DataFrame({**names, "verdict": ["holds", "not significant"]})).iloc[0].to_dict()
    {'point': '1', 'title': 'a', 'claim': 'b', 'local': 'mixed', 'global': 'not measured'}
    """
    import pandas as pd

    lines = []
    for names, group in table.groupby(["point", "title", "claim"], sort=False):
        line = dict(zip(["point", "title", "claim"], names, strict=True))
        for level in ("local", "global"):
            verdicts = set(group[group.level == level].verdict)
            line[level] = "not measured" if not verdicts else verdicts.pop() if len(verdicts) == 1 else "mixed"
        lines.append(line)
    return pd.DataFrame(lines)


def changes_of(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """The answers whose verdicts differ between two tables of findings, with both values.

    `reversed` is whether the sign of a verdict changed, `holds` to `does not hold` or back. Other changes are of
    significance alone, which a smaller number of seeds is enough for.
    """
    keys = ["point", "claim", "study", "data", "level"]
    both = new.merge(old, on=keys, suffixes=("", "_before"), validate="one_to_one")
    differ = both[both.verdict != both.verdict_before]
    signs, before = (
        differ[name].map({HOLDS: 1.0, FAILS: -1.0}).astype(float).fillna(0.0) for name in ("verdict", "verdict_before")
    )
    shown = [*keys, "mean", "low", "high", "verdict", "mean_before", "low_before", "high_before", "verdict_before"]
    return differ[shown].assign(reversed=signs * before < 0).reset_index(drop=True)
