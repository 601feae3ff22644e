"""Tables of a user's own: a CSV or parquet file as cells of text, each mistake with its row and column."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.events import count
from fedmem.errors import ComponentError, Problem, ScenarioError
from fedmem.shipped.files import data_path
from fedmem.wording import choices

SUFFIXES = (".csv", ".parquet")

MAX_PROBLEMS = 10
"""The most mistakes in data files that one error lists; further ones are counted."""

_SEPARATORS = {";": "a semicolon", "\t": "a tab", "|": "a bar", ",": "a comma"}

_Column = NDArray[np.object_]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A table as text.

    Attributes:
        path: as the user wrote it.
        columns: The cells (n,) of each column, by name; a missing one is empty.
        origins: For each row its file, its number in it from 0, and the line on which it ends; 0 for parquet.
    """

    path: str
    columns: dict[str, _Column]
    origins: tuple[tuple[str, int, int], ...]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def place(self, row: int) -> str:
        """Where a row is, for messages: its number in its file from 0, its line, and the file."""
        file, number, line = self.origins[row]
        return f"row {number} (line {line}) of {file}" if line else f"row {number} of {file}"

    def column(self, name: str, key: str) -> _Column:
        """The cells of a column; a missing one is an error at the key `dataset.<key>`."""
        if name not in self.columns:
            message = f"{self.path} has no column {name!r}{choices(name, self.columns)}"
            raise ComponentError(f"dataset.{key}", message)
        return self.columns[name]

    def take(self, rows: NDArray[Any]) -> Frame:
        """These rows, in this order."""
        return replace(
            self,
            columns={name: cells[rows] for name, cells in self.columns.items()},
            origins=tuple(self.origins[row] for row in rows),
        )

    def append(self, other: Frame, key: str) -> Frame:
        """These rows and those of another file; other columns are an error at this YAML key."""
        for name in self.columns:
            if name not in other.columns:
                message = f"{other.path} has no column {name!r}, which {self.path} has; give both the same columns"
                raise ComponentError(key, message)
        return replace(
            self,
            columns={name: np.concatenate([cells, other.columns[name]]) for name, cells in self.columns.items()},
            origins=self.origins + other.origins,
        )

    def empty_cells(self, values: Collection[str]) -> Frame:
        """The same with these cells empty, as missing ones are."""
        missing = set(values)
        return replace(
            self,
            columns={
                name: _as_column(["" if cell in missing else cell for cell in cells])
                for name, cells in self.columns.items()
            },
        )


def raise_problems(problems: Sequence[tuple[str, str]]) -> None:
    """One error with all mistakes (YAML path, message), or none; `ComponentError` for one, else as `raise_all`."""
    if len(problems) == 1:
        raise ComponentError(*problems[0])
    raise_all(problems)


def raise_all(problems: Sequence[tuple[str, str]]) -> None:
    """`ScenarioError` with all mistakes (YAML path, message): at most `MAX_PROBLEMS`, then a count. None without."""
    shown = [Problem(path=path, message=message) for path, message in problems[:MAX_PROBLEMS]]
    if more := len(problems) - len(shown):
        shown.append(Problem(path=problems[-1][0], message=f"… and {count(more, 'more mistake')}"))
    if shown:
        raise ScenarioError(shown)


def read_frame(path: str, key: str, *, separator: str = ",", encoding: str = "utf-8", strip: bool = False) -> Frame:
    """The table in a file that ends in `.csv` (with a header) or `.parquet`.

    Args:
        path: The file, from the folder in which fedmem is started.
        key: The YAML key that named it.
        separator: What is between the cells of a CSV file.
        encoding: That of a CSV file; a byte order mark is skipped.
        strip: Whether space around a cell is removed.

    Errors: `ComponentError` where there is no such file, it has no row, or it is no such table. Also where two columns
    have one name, or a row has more or fewer cells than the header.
    """
    place = data_path(path)
    if place.suffix.lower() not in SUFFIXES:
        raise ComponentError(key, f"{path} should end in one of {', '.join(SUFFIXES)}")
    if not place.is_file():
        raise ComponentError(key, f"there is no file {place.absolute()}; write the path of your table")
    parquet = place.suffix.lower() == ".parquet"
    if parquet:
        frame = _read_parquet(place, path, key)
    else:
        frame = _read_csv(_decode(place, path, key, encoding), path, key, separator, strip=strip)
    if strip:
        columns = {name: _as_column([cell.strip() for cell in cells]) for name, cells in frame.columns.items()}
        frame = replace(frame, columns=columns)
    if not len(frame):
        raise ComponentError(key, f"{path} has a header, but no row; write the rows of your data below it")
    return frame


def _read_csv(text: str, path: str, key: str, separator: str, *, strip: bool) -> Frame:
    if not text.strip():
        raise ComponentError(key, f"{path} is empty; write a header with the names of the columns, and the rows below")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=strip)
    except TypeError as error:
        raise ComponentError("dataset.separator", f"should be one character, got {separator!r}") from error
    rows: list[list[str]] = []
    lines: list[int] = []
    start = 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
            start = reader.line_num + 1
    except csv.Error as error:
        remedy = 'close each quote; write a quote inside a quoted cell twice, ""'
        message = f"{path} cannot be read from line {start} on ({error}); {remedy}"
        raise ComponentError(key, message) from error
    header = [name.strip() for name in rows[0]]
    _require_header(header, text, path, key, separator)
    quoted = _SEPARATORS.get(separator, repr(separator))
    remedy = f"put a cell that contains {quoted} in quotes, or leave a missing cell empty"
    raise_problems(
        [
            (key, f"{path} has {count(len(row), 'cell')} in line {line}, but {len(header)} columns; {remedy}")
            for row, line in zip(rows, lines, strict=True)
            if len(row) != len(header)
        ]
    )
    cells = list(zip(*rows[1:], strict=True)) or [()] * len(header)
    return Frame(
        path=path,
        columns={name: _as_column(column) for name, column in zip(header, cells, strict=True)},
        origins=tuple((path, row, line) for row, line in enumerate(lines[1:])),
    )


def _decode(place: Path, path: str, key: str, encoding: str) -> str:
    """The text of a file, without a byte order mark."""
    try:
        content = place.read_bytes()
    except OSError as error:
        raise ComponentError(key, f"{path} cannot be read: {error.strerror}; make it readable") from error
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise ComponentError("dataset.encoding", f"there is no encoding {encoding!r}; write utf-8 or cp1252") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        message = (
            f"{path} is not {encoding} at byte {error.start}, in line {line}; save it as UTF-8, or write its encoding, "
            "such as `encoding: cp1252`"
        )
        raise ComponentError(key, message) from error


def _require_header(header: Sequence[str], text: str, path: str, key: str, separator: str) -> None:
    """Columns with a name each; one column alone is the sign of another separator."""
    if len(header) == 1:
        first = text.splitlines()[0]
        counts = {other: first.count(other) for other in _SEPARATORS if other != separator}
        sign = max(counts, key=lambda other: counts[other])
        if counts[sign]:
            written = "\\t" if sign == "\t" else sign
            message = (
                f"{path} has one column, {header[0]!r}, but its first line has {_SEPARATORS[sign]} {counts[sign]} "
                f'times; write `separator: "{written}"`'
            )
            raise ComponentError("dataset.separator", message)
    _require_names(header, path, key)


def _require_names(header: Sequence[str], path: str, key: str) -> None:
    """Each column has a name of its own."""
    for number, name in enumerate(header, 1):
        if not name:
            message = f"column {number} of {path} has no name; write one in the first line, or remove the column"
            raise ComponentError(key, message)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise ComponentError(key, f"{path} has several columns {twice[0]!r}; give each a name of its own")


def _read_parquet(place: Path, path: str, key: str) -> Frame:
    import pandas as pd

    try:
        frame = pd.read_parquet(place)
    except Exception as error:  # pyarrow fails in many ways; whatever it is, the file is what the user has to mend
        raise ComponentError(key, f"{path} cannot be read as parquet: {error}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    if frame.shape[1] == 0:
        raise ComponentError(key, f"{path} has no column; write your data to it")
    _require_names([str(name) for name in frame.columns], path, key)
    return Frame(
        path=path,
        columns={str(name): _as_text(frame[name], str(name), path, key) for name in frame.columns},
        origins=tuple((path, row, 0) for row in range(len(frame))),
    )


def _as_text(values: Any, name: str, path: str, key: str) -> _Column:
    """A column of pandas as text."""
    missing = values.isna().to_numpy()
    if values.dtype.kind == "f":
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        whole = bool((numbers[~missing] % 1 == 0).all())
        texts = [str(int(number)) if whole else repr(float(number)) for number in np.where(missing, 0, numbers)]
    else:
        for row, value in enumerate(values):
            if isinstance(value, list | dict | set | tuple | bytes | np.ndarray):
                message = f"row {row}, column {name}, of {path} holds {type(value).__name__}, not a number or text"
                raise ComponentError(key, f"{message}; remove the column from the file")
        texts = [str(value) for value in values]
    return _as_column(["" if gap else cell for cell, gap in zip(texts, missing, strict=True)])


def _as_column(cells: Sequence[str]) -> _Column:
    """(n,) objects, which take no more room than their text."""
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column
