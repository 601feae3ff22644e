"""Columns of a table as inputs: what each is, what is learnt of it from the training rows, and its numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.wording import did_you_mean

MISSING = "(missing)"
"""The category of a missing cell."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CODE = re.compile(r"0\d+")

_Cells = NDArray[np.object_]


def is_number(cell: str) -> bool:
    """Whether a cell is a decimal number that a float can hold, unlike 1e400.

    >>> [is_number(cell) for cell in ("-1.5e3", ".5", "1,5", "nan", "1_000", "", "1e400")]
    [True, True, False, False, False, False, False]
    """
    return _NUMBER.fullmatch(cell) is not None and math.isfinite(float(cell))


def numbers_of(cells: _Cells) -> FloatArray | None:
    """(n,) the numbers of a column, NaN for missing cells; None where a cell is text, or all are missing.

    Digits after a leading zero, such as 007, are a code and therefore text.

    >>> numbers_of(np.array(["1", "", "2.5"], dtype=object)).tolist()
    [1.0, nan, 2.5]
    """
    distinct = set(cells) - {""}
    if not distinct or not all(map(is_number, distinct)) or any(map(_CODE.fullmatch, distinct)):
        return None
    values = {cell: float(cell) for cell in distinct} | {"": np.nan}
    return np.array([values[cell] for cell in cells])


def first_text(cells: _Cells) -> int | None:
    """The first row whose cell is no number in a column that has numbers as well; None where it is of one type."""
    verdicts = {cell: is_number(cell) for cell in set(cells) - {""}}
    if not any(verdicts.values()) or all(verdicts.values()):
        return None
    return next(row for row, cell in enumerate(cells) if cell and not verdicts[cell])


def _first_code(cells: _Cells) -> int | None:
    """The first row whose cell has digits after a leading zero."""
    return next((row for row, cell in enumerate(cells) if _CODE.fullmatch(cell)), None)


def in_order(cells: set[str]) -> tuple[str, ...]:
    """Distinct cells in order: by number where all are numbers, else by text.

    >>> in_order({"10", "9"}), in_order({"b", "10", "9"})
    (('9', '10'), ('10', '9', 'b'))
    """
    return tuple(sorted(cells, key=lambda cell: (float(cell), cell)) if all(map(is_number, cells)) else sorted(cells))


def positions(cells: Iterable[object], names: Sequence[str]) -> IntArray:
    """(n,) the position of each cell among the names; -1 for another."""
    place: dict[object, int] = {name: position for position, name in enumerate(names)}
    return np.array([place.get(cell, -1) for cell in cells], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Number:
    """A column of numbers: x becomes (x - low) / (high - low), cut to [0, 1].

    Attributes:
        name: Of the column.
        low: What becomes 0.
        high: What becomes 1.
        median: What stands for a missing cell.
        given: Whether the user fixed the range.
    """

    name: str
    low: float
    high: float
    median: float
    given: bool

    @property
    def width(self) -> int:
        """Columns of the input."""
        return 1

    @property
    def text(self) -> str:
        """The encoding of the column, in words."""
        source = "the range in `ranges`" if self.given else "the range of the training rows"
        return f"{self.name}: number, {self.low:.6g} to {self.high:.6g} ({source})"

    def encode(self, cells: _Cells) -> NDArray[np.float32]:
        """(n, 1) float32 in [0, 1]."""
        values = numbers_of(cells)
        assert values is not None, "column_problem refuses what does not fit"
        filled = np.where(np.isnan(values), self.median, values)
        return np.clip((filled[:, None] - self.low) / (self.high - self.low), 0, 1).astype(np.float32)

    def unusual(self, cells: _Cells) -> int:
        """How many cells are cut to the range."""
        values = numbers_of(cells)
        return 0 if values is None else int(((values < self.low) | (values > self.high)).sum())

    unusual_text: ClassVar[str] = "outside the range, cut to it"
    filling: ClassVar[str] = "the median"


@dataclass(frozen=True, kw_only=True)
class Category:
    """A column of categories: a one-hot in the order of `values`; all zeros for a cell that is none of them."""

    name: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """Columns of the input."""
        return len(self.values)

    @property
    def text(self) -> str:
        """The encoding of the column, in words."""
        shown = ", ".join(self.values[:8]) + (f", … ({len(self.values)} in all)" if len(self.values) > 8 else "")
        return f"{self.name}: category, {shown}"

    def encode(self, cells: _Cells) -> NDArray[np.float32]:
        """(n, k) float32."""
        place = positions(_with_missing(cells), self.values)
        one_hot: NDArray[np.float32] = (place[:, None] == np.arange(len(self.values))).astype(np.float32)
        return one_hot

    def unusual(self, cells: _Cells) -> int:
        """How many cells are no known category."""
        return int((positions(_with_missing(cells), self.values) < 0).sum())

    unusual_text: ClassVar[str] = "with a category that no training row has, all zeros"
    filling: ClassVar[str] = f"the category {MISSING}"


Encoding = Number | Category


def _with_missing(cells: _Cells) -> _Cells:
    return np.where(cells == "", MISSING, cells)


def learn(name: str, training: _Cells, *, categorical: bool, limits: tuple[float, float] | None) -> Encoding | None:
    """How a column becomes numbers; None for one that is the same in all training rows, without `limits`.

    Args:
        name: Of the column.
        training: (m,) its cells in the training rows, which decide all: no test cell has a say.
        categorical: Whether numbers are categories.
        limits: The range that the user gave.
    """
    learnt = None if categorical else numbers_of(training)
    only_limits = limits is not None and not categorical and bool((training == "").all())
    if learnt is None and not only_limits:
        categories = in_order(set(training) - {""}) + ((MISSING,) if (training == "").any() else ())
        return Category(name=name, values=categories) if len(categories) > 1 else None
    finite = np.zeros(0) if learnt is None else learnt[~np.isnan(learnt)]
    low, high = limits if limits is not None else (float(finite.min()), float(finite.max()))
    if low == high:
        return None
    median = float(np.median(finite)) if len(finite) else (low + high) / 2
    return Number(name=name, low=low, high=high, median=median, given=limits is not None)


def learnt_from_rows(encodings: Sequence[Encoding], *, has_medians: bool) -> tuple[str, ...]:
    """The sorts of facts that encodings of columns learnt from training rows; with `has_medians` also medians.

    >>> learnt_from_rows([Number(name="age", low=0, high=9, median=4, given=False)], has_medians=True)
    ('ranges', 'medians')
    """
    numbers = [encoding for encoding in encodings if isinstance(encoding, Number)]
    ranges = not all(number.given for number in numbers)
    is_learnt = {
        "ranges": ranges, "medians": has_medians and bool(numbers), "categories": len(numbers) < len(encodings)
    }  # fmt: skip
    return tuple(name for name, learnt in is_learnt.items() if learnt)


def describe(encoding: Encoding, cells: _Cells, train: IntArray, test: IntArray) -> str:
    """The decisions about a column, for people: its type, missing cells, and rows with unusual values."""
    texts = [encoding.text]
    gaps = int((cells == "").sum())
    if gaps:
        median = f" {encoding.median:.6g}" if isinstance(encoding, Number) else ""
        texts.append(f"{gaps} missing, filled by {encoding.filling}{median}")
    for part, rows in (("training", train), ("test", test)):
        count = encoding.unusual(cells[rows])
        if count:
            texts.append(f"{count} {part} row{'s' * (count > 1)} {encoding.unusual_text}")
    return "; ".join(texts)


def column_problem(
    name: str, cells: _Cells, train: IntArray, *, categorical: bool, has_limits: bool, max_categories: int
) -> tuple[str, str, int | None]:
    """Why a column cannot be an input: a YAML key, the reason with its remedy, and the row; empty where it can.

    The training rows `train` decide whether it is of numbers; a code in another row does not fit.
    """
    distinct = set(cells) - {""}
    text_row = None if categorical else first_text(cells)
    if text_row is not None:
        cell = cells[text_row]
        comma = "write a decimal point; " if is_number(cell.replace(",", ".", 1)) else ""
        comma = "it is too large; " if _NUMBER.fullmatch(cell) else comma
        message = (
            f"{cell!r} is no number, but others in this column are. {comma}Correct the cell, list it in "
            f"`missing_values` if it means a missing value, or write `categorical: [{name}]`"
        )
        return "dataset.path", message, text_row
    trained = cells[train]
    numbers = None if categorical else numbers_of(trained if (trained != "").any() else cells)
    code_row = None if numbers is None else _first_code(cells)
    if code_row is not None:
        message = (
            f"{cells[code_row]!r} is a code with a leading zero, but the training rows hold numbers; write it without "
            f"the zero, or write `categorical: [{name}]`"
        )
        return "dataset.path", message, code_row
    if numbers is None and not categorical and (date := _first_date(cells)):
        message = (
            f"column {name} holds dates, such as {date}; convert it to a number, such as days since a fixed day or the "
            f"year. Or write `drop: [{name}]`, or `categorical: [{name}]` for few dates. With other columns an exact "
            "date may identify a person (a quasi-identifier), so prefer the year"
        )
        return "dataset.path", message, None
    count = int((cells != "").sum())
    if numbers is None or bool((numbers[~np.isnan(numbers)] % 1 == 0).all()):
        unique = count >= _FEWEST_IDENTIFIERS and len(distinct) == count and not (has_limits or categorical)
        if unique:
            keep = "" if numbers is None else f", or give its range, `ranges: {{{name}: [low, high]}}`"
            message = (
                f"column {name} has another value in every row, as an identifier has; write `drop: [{name}]`{keep}"
            )
            return "dataset.drop", message, None
    if has_limits and numbers is None:
        return "dataset.ranges", f"column {name} is of text, and has no range; take it out of `ranges`", None
    if numbers is None and len(distinct) > max_categories:
        message = (
            f"column {name} has {len(distinct)} categories, more than `max_categories: {max_categories}`; write "
            f"`drop: [{name}]`, merge the rare ones, or raise max_categories"
        )
        return "dataset.max_categories", message, None
    return "", "", None


_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ]\d{1,2}:\d{2}.*)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( \d{1,2}:\d{2}.*)?"
    rf"|\d{{1,2}}\.?[ -]({_MONTHS})[a-z]*\.?,?[ -]\d{{2,4}}|({_MONTHS})[a-z]*\.? \d{{1,2}}, ?\d{{2,4}}",
    re.IGNORECASE,
)
"""Dates of ISO 8601, with or without a time, and in common forms with day, month and year."""


def _first_date(cells: _Cells) -> str:
    """The first cell of a column in which every cell that is not missing is a date; empty for other columns.

    >>> _first_date(np.array(["", "2020-01-03"])), _first_date(np.array(["3 Jan 2020"])), _first_date(np.array(["1/2"]))
    ('2020-01-03', '3 Jan 2020', '')
    """
    texts = [str(cell).strip() for cell in dict.fromkeys(cells.tolist()) if cell != ""]
    return texts[0] if texts and all(_DATE.fullmatch(text) for text in texts) else ""


_FEWEST_IDENTIFIERS = 10
"""Of fewer rows, different values are no sign of an identifier."""


def unknown_names(key: str, names: Sequence[str], columns: Sequence[str], path: str) -> list[tuple[str, str]]:
    """For each name that is no column: the YAML key, and what is wrong."""
    return [
        (f"dataset.{key}", f"{path} has no column {name!r}{did_you_mean(name, columns)}; it has {', '.join(columns)}")
        for name in names
        if name not in columns
    ]
