"""How the numbers of a column are written: decimal commas, separators of thousands, and units are no categories."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedmem.datasets._columns import is_number
from fedmem.datasets._frames import Frame
from fedmem.errors import ComponentError

NEARLY_ALL = 0.9
"""The share of cells written in one way from which on a column is one of numbers."""

_Cells = NDArray[np.object_]

_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?")
_THOUSANDS = re.compile(
    r"[+-]?\d{1,3}(?:(?:,\d{3})+(?:\.\d+)?|(?:\.\d{3})+(?:,\d+)?|(?:[ '\u2019\u00a0\u202f]\d{3})+(?:[.,]\d+)?)"
)
_UNIT = re.compile(
    r"[+-]?(?:\d+(?:[.,]\d+)?|[.,]\d+)\s*([^\W\d_]{1,12}|[^\w\s.,:;-]{1,2}[^\W\d_]{0,12}|[^\W\d_]+/[^\W\d_]+)"
)


def has_comma(cell: str) -> bool:
    """Whether a cell is a number with a decimal comma.

    >>> [has_comma(cell) for cell in ("120,5", "-,5", "120.5", "120", "1.234,5")]
    [True, True, False, False, False]
    """
    return "," in cell and _COMMA.fullmatch(cell) is not None


def notation_problem(name: str, cells: _Cells, place: Callable[[int], str]) -> tuple[str, str, int | None]:
    """Why a column of numbers is not read as one: a YAML key, the reason with its remedy, and the row; else empty.

    Errors are found where nearly all cells are numbers with a decimal comma, with separators of thousands, or with one
    unit. A single text among plain numbers is found elsewhere.
    """
    filled = cells[cells != ""]
    if not len(filled) or all(map(is_number, set(filled))):
        return "", "", None
    category = f"If the cells are categories, write `categorical: [{name}]`"
    thousands = _share(filled, lambda cell: is_number(cell) or _THOUSANDS.fullmatch(cell) is not None)
    comma = _share(filled, lambda cell: is_number(cell.replace(",", ".", 1)) and "." not in cell)
    if comma >= NEARLY_ALL and any(map(has_comma, filled)):
        row = _first(cells, has_comma)
        grouped = all(_THOUSANDS.fullmatch(cell) for cell in set(filled) if "," in cell)
        also = ", or, if the commas separate thousands, the numbers without commas" if grouped else ""
        stray = _first(cells, lambda cell: cell != "" and _COMMA.fullmatch(cell) is None)
        rest = f", and correct {cells[stray]!r} in {place(stray)}, which is no number" if stray >= 0 else ""
        return (
            "dataset.decimal",
            f'{cells[row]!r} has a decimal comma, as numbers of this column have; write `decimal: ","`, or a decimal '
            f"point in the file{also}{rest}. {category}",
            row,
        )
    if thousands >= NEARLY_ALL and thousands > _share(filled, is_number):
        row = _first(cells, lambda cell: not is_number(cell) and _THOUSANDS.fullmatch(cell) is not None)
        message = f"{cells[row]!r} has separators of thousands; write the numbers of this column without them"
        return "dataset.path", f"{message}. {category}", row
    return _unit_problem(filled, cells, category, place)


def _unit_problem(
    filled: _Cells, cells: _Cells, category: str, place: Callable[[int], str]
) -> tuple[str, str, int | None]:
    """Numbers that nearly all have the same unit behind them."""
    units = [match.group(1) for cell in filled if (match := _UNIT.fullmatch(cell))]
    unit = max(sorted(set(units)), key=units.count, default="")
    alike = _share(filled, lambda cell: (match := _UNIT.fullmatch(cell)) is not None and match.group(1) == unit)
    if not unit or alike < NEARLY_ALL or len(set(filled)) < 3:
        return "", "", None
    row = _first(cells, lambda cell: _UNIT.fullmatch(cell) is not None)
    stray = _first(cells, lambda cell: cell != "" and not is_number(cell) and not cell.endswith(unit))
    rest = f", and correct {cells[stray]!r} in {place(stray)}" if stray >= 0 else ""
    message = f"{cells[row]!r} is a number with the unit {unit!r}; write the numbers of this column without it{rest}"
    return "dataset.path", f"{message}. {category}", row


def _share(filled: _Cells, is_so: Callable[[str], bool]) -> float:
    """The share of the cells for which something holds."""
    verdicts = {cell: is_so(cell) for cell in set(filled)}
    return sum(verdicts[cell] for cell in filled) / len(filled)


def _first(cells: _Cells, is_so: Callable[[str], bool]) -> int:
    """The first such row; -1 where there is none."""
    return next((row for row, cell in enumerate(cells) if is_so(cell)), -1)


def with_decimal_points(frame: Frame, others: Collection[str]) -> Frame:
    """The table with decimal points, of one that has decimal commas; the columns of `others` stay as they are.

    Errors: `ComponentError` for a point in a number of such a column, which may separate thousands.
    """
    columns = dict(frame.columns)
    for name in columns.keys() - set(others):
        cells = columns[name]
        distinct = set(cells) - {""}
        if not distinct or not all(is_number(cell) or _COMMA.fullmatch(cell) for cell in distinct):
            continue
        row = _first(cells, lambda cell: "." in cell)
        if row >= 0:
            message = (
                f'{frame.place(row)}, column {name}: {cells[row]!r} has a point, but `decimal: ","` is given; write '
                f"numbers without separators of thousands. If the cells are categories, write `categorical: [{name}]`"
            )
            raise ComponentError("dataset.decimal", message)
        columns[name] = np.array([cell.replace(",", ".", 1) for cell in cells], dtype=object)
    return replace(frame, columns=columns)
