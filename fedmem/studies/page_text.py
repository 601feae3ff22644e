"""The page of a study from its text, `page.md`, in which each number is a reference to a row of a table.

    Samples copy: {{gates claim="samples come nearer" level=global}}.

A reference names a table and the columns that choose one row of it. It becomes the value of the row with its interval.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import BoolArray
from fedmem.errors import Problem, ScenarioError
from fedmem.studies.experiment import verdict_cells
from fedmem.wording import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

TEXT, PAGE = "page.md", "README.md"

_REFERENCE = re.compile(r"\{\{(.+?)\}\}", re.DOTALL)

_VALUES = ("value", "mean", "share", "estimate")
"""The columns that are the value of a row, the first that a table has."""


def write_page(folder: Path) -> None:
    """Write `README.md` from `page.md` and the tables of a folder; nothing where it has no such text.

    Errors: `ScenarioError` with every reference that does not choose one row.
    """
    import pandas as pd

    if not (folder / TEXT).exists():
        return
    tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    text = (folder / TEXT).read_text(encoding="utf-8")
    (folder / PAGE).write_text(filled_page(text, tables, str(folder / TEXT)), encoding="utf-8")


def filled_page(text: str, tables: Mapping[str, pd.DataFrame], source: str = TEXT) -> str:
    """The text with the number of each reference in its place.

    A value with spaces is written in quotation marks, and `column=` chooses the rows without a value. A reference may
    also have these options.

    - `show=NAME`: the value of this column without an interval, such as `verdict` or `seeds`;
    - `of=NAME`: the column of the value, whose interval is in `NAME_low` and `NAME_high`;
    - `digits=N`: digits after the point, 2 by default;
    - `times=X`: a factor, such as 100 for percent and -1 for the opposite direction.

    `{{verdicts gates}}` shows all claims of a table, a line each: the difference, interval and verdict at both levels.
    Further words choose rows, as in other references. With `by=NAME,NAME` these columns follow the claim.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"level": ["local", "global"], "mean": [0.5, 0.123], "low": 0.1, "high": 0.9})
    >>> filled_page("It is {{gates level=global}}.", {"gates": table})
    'It is 0.12 [0.10, 0.90].'
    >>> filled_page("It is {{gates level=global show=mean digits=1 times=100}} %.", {"gates": table})
    'It is 12.3 %.'

    Errors: `ScenarioError` with every reference that does not choose one row.
    """
    problems = []

    def fill(match: re.Match[str]) -> str:
        try:
            return _reference_text(match[1], tables)
        except ValueError as error:
            line = text.count("\n", 0, match.start()) + 1
            problems.append(Problem(path="", message=str(error), source=f"{source}, line {line}: {match[0]}"))
            return match[0]

    filled = _REFERENCE.sub(fill, text)
    if problems:
        raise ScenarioError(problems)
    return filled


def _reference_text(reference: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """The text of one reference. Errors: `ValueError` that says what is wrong with it."""
    name, *words = shlex.split(reference.replace("\n", " "))
    is_verdicts = name == "verdicts" and bool(words)
    if is_verdicts:
        name, *words = words
    if name not in tables:
        raise ValueError(f"no table {name}; choose from: {', '.join(tables)}{did_you_mean(name, tables)}")
    options = {"show": "", "of": "", "digits": "2", "times": "1", "by": ""}
    table = tables[name]
    chosen = np.ones(len(table), dtype=bool)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word} should be column=value")
        if key in options and key not in table:
            options[key] = value
        else:
            chosen &= _has_value(table[_column_of(key, table)], value)
    rows = table[chosen]
    if is_verdicts:
        return _verdict_lines(rows, [_column_of(column, rows) for column in options["by"].split(",") if column])
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} rows of {name} have these values; give those that choose one")
    return _row_text(rows, options)


def _has_value(column: pd.Series, value: str) -> BoolArray:
    """Where a column has the value of this text, or none for an empty text. Errors: `ValueError` for no number."""
    import pandas as pd

    if not value:
        found = column.isna()
    elif pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        found = column == float(value)
    else:
        found = (column if column.dtype == "str" else column.astype(str)) == value
    return found.to_numpy(dtype=bool)


def _verdict_lines(rows: pd.DataFrame, by: Sequence[str]) -> str:
    """A line for each claim, and for each value of these columns."""
    import pandas as pd

    lines = []
    groups: Any = rows.groupby(["claim", *by], sort=False, dropna=False)
    for names, found in groups:
        cells = " | ".join("" if pd.isna(name) else str(name) for name in names)
        lines.append(f"| {cells} {verdict_cells(found)}")
    return "\n".join(lines)


def _row_text(rows: pd.DataFrame, options: Mapping[str, str]) -> str:
    """One row as these options show it."""
    import pandas as pd

    digits, times = int(options["digits"]), float(options["times"])
    row: dict[str, Any] = {str(name): value for name, value in rows.iloc[0].items()}
    if options["show"]:
        shown = row[_column_of(options["show"], rows)]
        return shown if isinstance(shown, str) else _number(shown * times, digits)
    of = _column_of(options["of"] or next((column for column in _VALUES if column in row), "value"), rows)
    low, high = (row.get(f"{of}_{end}", row.get(end, math.nan)) for end in ("low", "high"))
    if pd.isna(row[of]):
        return "undefined"
    value = _number(row[of] * times, digits)
    if pd.isna(low) or pd.isna(high):
        return value
    low, high = sorted((low * times, high * times))
    return f"{value} [{_number(low, digits)}, {_number(high, digits)}]"


def _column_of(column: str, rows: pd.DataFrame) -> str:
    """A column that a table has. Errors: `ValueError`."""
    columns = [str(name) for name in rows]
    if column not in columns:
        raise ValueError(f"no column {column}; choose from: {', '.join(columns)}{did_you_mean(column, columns)}")
    return column


def _number(value: float, digits: int) -> str:
    """A number with so many digits and a minus sign; −0.00 is a number below 0 that rounds to 0."""
    return f"{value:.{digits}f}".replace("-", "−")
