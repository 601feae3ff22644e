"""The frame of an experiment: where it is trained, its tables and figures, gates, and pages bound to rows.

An experiment is a folder with a question: `scenario.yaml`, `run.py` with its `Study`, `analysis.py` with its tables and
gates, `figure.py`, and `README.md`, the page. Every interval on the page is a row of one of its tables.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.statistics import holm
from fedmem.studies.contrasts import LEVEL, mean_of
from fedmem.studies.experiment_figure import TableFigure

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def trained_on(name: str | None) -> Iterator[None]:
    """Where runs are trained until the block ends, by this process and by those that it starts."""
    from fedmem.execution.backends import backend_of
    from fedmem.execution.backends.choice import VARIABLE

    if name is None or (backend := backend_of(name)) is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    with backend.connect():
        os.environ[VARIABLE] = backend.joined_name()
        try:
            yield
        finally:
            del os.environ[VARIABLE]
            if before is not None:
                os.environ[VARIABLE] = before


def write_results(
    folder: Path, tables: Mapping[str, pd.DataFrame], figures: Sequence[TableFigure], *, digits: int
) -> None:
    """Write each table as `<name>.csv` with so many significant digits, and the figures that are drawn from them.

    Where the folder has a page, `README.md`, a warning names each interval on it that no table there has any more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format=f"%.{digits}g")
    for figure in figures:
        figure.write(folder)
    if unbound := stale_intervals(folder):
        warnings.warn(f"{folder / 'README.md'} has intervals that no table has: {', '.join(unbound)}", stacklevel=2)


def over_seeds(values: FloatArray) -> dict[str, float]:
    """Mean over seeds, its 95 % interval (Student) and their number; undefined unless every seed has a value.

    >>> over_seeds(np.array([1.0, np.nan, 3.0]))
    {'mean': nan, 'low': nan, 'high': nan, 'seeds': 3}
    """
    found = mean_of(values if np.isfinite(values).all() else np.array([math.nan]))
    return {"mean": found.value, "low": found.low, "high": found.high, "seeds": len(values)}


def table_over_seeds(values: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """A row for each group of `keys`: mean over seeds with its interval (`over_seeds`), undefined where a seed is.

    Args:
        values: One row a value: the columns of `keys`, `seed` and `value`.
        keys: Columns of the groups, which keep their order.

    >>> import pandas as pd
    >>> values = pd.DataFrame({"arm": ["b", "a", "b", "a"], "seed": [0, 0, 1, 1], "value": [1.0, 5.0, 3.0, 5.0]})
    >>> table_over_seeds(values, ["arm"])[["arm", "mean", "seeds"]].to_numpy().tolist()
    [['b', 2.0, 2], ['a', 5.0, 2]]
    """
    import pandas as pd

    rows = []
    for key, group in values.groupby(list(keys), sort=False):
        of_seeds = group.sort_values("seed")["value"].to_numpy(dtype=np.float64)
        rows.append({**dict(zip(keys, key, strict=True)), **over_seeds(of_seeds)})
    return pd.DataFrame(rows)


def with_verdict(difference: FloatArray) -> dict[str, float | str]:
    """`over_seeds` of a difference that is above 0 if a claim holds, with the verdict on the claim."""
    found = over_seeds(difference)
    return {**found, "verdict": verdict(found["low"], found["high"])}


def verdict_cells(rows: pd.DataFrame) -> str:
    """The cells of a page with the difference, interval and verdict of a claim at both levels.

    >>> import pandas as pd
    >>> row = {"level": "local", "mean": 0.1, "low": 0.05, "high": 0.15, "verdict": "holds"}
    >>> verdict_cells(pd.DataFrame([row]))
    '| 0.10 [0.05, 0.15] holds | |'
    >>> verdict_cells(pd.DataFrame([{**row, "low": math.nan, "verdict": "not reached"}]))
    '| not reached | |'
    """
    texts = {"local": "", "global": ""}
    for level, mean, low, high, word in zip(rows.level, rows["mean"], rows.low, rows.high, rows.verdict, strict=True):
        interval = "" if math.isnan(low + high) else f"{mean:.2f} [{low:.2f}, {high:.2f}] "
        texts[str(level)] = f" {interval.replace('-', '−')}{word}"
    return f"|{texts['local']} |{texts['global']} |"


def verdict(low: float, high: float) -> str:
    """The verdict of an interval on a gate, a claim that a value is above 0.

    `holds` above 0, `contradicted` below 0, `not significant` where it contains 0, and `undefined` without an interval.

    >>> verdict(0.1, 0.3), verdict(-0.3, -0.1), verdict(-0.1, 0.3), verdict(float("nan"), float("nan"))
    ('holds', 'contradicted', 'not significant', 'undefined')
    """
    if math.isnan(low + high):
        return "undefined"
    if low > 0:
        return "holds"
    return "contradicted" if high < 0 else "not significant"


def verdict_after_holm(low: float, high: float, adjusted: float) -> str:
    """The verdict of an interval, if its adjusted p is below 0.05 too; NaN is no test, and leaves that of the interval.

    >>> verdict_after_holm(0.1, 0.3, 0.01), verdict_after_holm(0.1, 0.3, 0.05), verdict_after_holm(0.1, 0.3, math.nan)
    ('holds', 'not significant', 'holds')
    """
    found = verdict(low, high)
    return "not significant" if found in ("holds", "contradicted") and adjusted >= LEVEL else found


def holm_by_family(table: pd.DataFrame, families: Sequence[str]) -> pd.Series:
    """Holm's adjusted `p` of each row within its family, the rows that agree in these columns; NaN is no test."""
    return table.groupby(list(families))["p"].transform(lambda p: holm(p.to_numpy(dtype=np.float64)))


def with_references(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """A table with the column `references`: among how many others each secret is ranked, empty for other measures.

    >>> import pandas as pd
    >>> with_references(pd.DataFrame({"metric": ["exposure", "memorisation"]}), 990).references.tolist()
    [990, <NA>]
    """
    import pandas as pd

    counts = pd.Series(count, index=table.index, dtype="Int64")
    return table.assign(references=counts.where(table.metric == "exposure"))


INTERVAL = re.compile(r"(-?[\d.]+)\s+\[(-?[\d.]+),\s+(-?[\d.]+)\]")
"""A value with its interval, as a page writes them: 0.12 [0.10, 0.14]."""


def page_intervals(page: str) -> list[tuple[str, str, str]]:
    """Every value of a page that stands before its interval: (value, low, high).

    >>> page_intervals("It rises by −0.5 [−1.0, 0.1] bits.")
    [('-0.5', '-1.0', '0.1')]
    """
    return [(value, low, high) for value, low, high in INTERVAL.findall(page.replace("−", "-"))]


def stale_intervals(folder: Path) -> list[str]:
    """The intervals of `README.md` in a folder that no table in it has; none without a page."""
    import pandas as pd

    if not (folder / "README.md").exists():
        return []
    tables = [pd.read_csv(path) for path in sorted(folder.glob("*.csv"))]
    return unbound_intervals((folder / "README.md").read_text(encoding="utf-8"), tables)


def unbound_intervals(page: str, tables: Iterable[pd.DataFrame]) -> list[str]:
    """The intervals of a page that no row of its tables has, to the digits that the page shows.

    A row has a value, and its interval in the columns `low` and `high`, or in those of the value's name with `_low` and
    `_high`. Or it has a share with its `standard_error`. A page may show an interval in percentage points, or with the
    opposite sign.
    """
    rows = [np.empty((0, 3))]
    for table in tables:
        if {"share", "standard_error"} <= set(table):
            reach = 1.96 * table.standard_error
            table = table.assign(share_low=table.share - reach, share_high=table.share + reach)
        for value in table.select_dtypes("float"):
            for low, high in (("low", "high"), (f"{value}_low", f"{value}_high")):
                if {low, high} <= set(table):
                    rows.append(table[[value, low, high]].to_numpy(np.float64))
    table_intervals = np.concatenate(rows)
    # columns of other things are no values of these intervals
    table_intervals = np.unique(
        table_intervals[
            (table_intervals[:, 1] <= table_intervals[:, 0]) & (table_intervals[:, 0] <= table_intervals[:, 2])
        ],
        axis=0,
    )
    table_intervals = np.concatenate([table_intervals, -table_intervals[:, [0, 2, 1]]])
    table_intervals = np.concatenate([table_intervals, 100 * table_intervals])
    missing = []
    for interval in page_intervals(page):
        # the rounding of the table, then that of the page, of which some numbers had fewer digits already
        unit = 0.56 * 10.0 ** -len(interval[0].partition(".")[2])
        if not (np.abs(table_intervals - np.array(interval, dtype=np.float64)) <= unit).all(axis=1).any():
            missing.append("{} [{}, {}]".format(*interval))
    return missing
