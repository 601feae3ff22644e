"""Finished runs and studies as other tools read them, and the contract of a target of `fedmem export`.

A target is one class in a file of `fedmem/exports/`. The file is named as `--to` names the target::

    class Lines:
        extra = ""
        package = ""
        has_tables = False
        open_with = "less {folder}/values.txt"

        def write(self, content: ExportContent, folder: Path, place: Path) -> None:
            lines = [f"{scalar.name} {scalar.step} {scalar.value}" for run in content.runs for scalar in run.scalars]
            (folder / "values.txt").write_text("\\n".join(lines))

A target that can also be written to while a run goes on is a `TrackingTarget`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from fedmem.contracts.measurement import Labels, value_text

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.contracts.arrays import Params

ColumnType = Literal["string", "integer", "number", "boolean"]
"""The types of columns, as the standard for tabular data packages names them."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of an exported table: its name, its type, and its meaning in one line."""

    name: str
    type: ColumnType
    means: str


@dataclass(frozen=True, kw_only=True)
class ExportTable:
    """A tidy table.

    Attributes:
        name: Its name, which is also that of its file.
        means: What a row is, in one line.
        frame: Returns the table. Undefined numbers are NaN, and missing whole numbers `<NA>`.
        meanings: The meaning of each column.
        other: The meaning of all other columns.
    """

    name: str
    means: str
    frame: Callable[[], pd.DataFrame]
    meanings: Mapping[str, str] = field(default_factory=dict)
    other: str = "a label that its component declares"


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """One point of a series: a number at a round. It is finite.

    Examples:
        >>> Scalar(name="auc/global/typical", step=5, value=float("nan"))
        Traceback (most recent call last):
        ValueError: the point 5 of auc/global/typical is nan, which a series leaves out
    """

    name: str
    step: int
    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"the point {self.step} of {self.name} is {self.value}, which a series leaves out")


@dataclass(frozen=True, kw_only=True)
class ExportRun:
    """One line of a tracking tool: a run, or a setting and seed of a comparison or sweep.

    Attributes:
        name: Its name; unique within an export.
        parameters: Name -> value, as text.
        scalars: Its series, point by point.
        files: Name -> the file to attach.
        notes: Title -> text for people.
        finished: When the run was finished, in seconds since 1970.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    scalars: Sequence[Scalar] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    finished: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ExportContent:
    """All that is exported of a finished run, comparison or sweep.

    Attributes:
        title: Its name, for people.
        id: The name of its folder.
        tables: Its tables.
        runs: Its runs.
        left_out: How many numbers are undefined or infinite, so that series leave them out. Tables have them all.
        weights: Returns the tensors of the model that the export has; None for a study, which has none.
    """

    title: str
    id: str
    tables: Sequence[ExportTable] = ()
    runs: Sequence[ExportRun] = ()
    left_out: int = 0
    weights: Callable[[], Params] | None = None


class Tracker(Protocol):
    """An open run of a tracking tool, which points are added to while the training goes on."""

    def add(self, scalars: Iterable[Scalar]) -> None:
        """Writes further points, so that the tool shows them now."""

    def close(self, run: ExportRun | None) -> None:
        """Ends the run. `run` has what is known at its end; None for a run that failed."""


class Target(Protocol):
    """A tool or format that results are exported to.

    Attributes:
        extra: The optional extra of fedmem that installs what the target needs; empty where it needs nothing.
        package: The package that it imports; empty where it needs nothing.
        has_tables: Whether it writes the tables, which have all numbers, rather than the series.
        open_with: The command that shows an export, with `{folder}` for its place.
    """

    @property
    def extra(self) -> str: ...

    @property
    def package(self) -> str: ...

    @property
    def has_tables(self) -> bool: ...

    @property
    def open_with(self) -> str: ...

    def write(self, content: ExportContent, folder: Path, place: Path) -> None:
        """Writes everything into this empty folder, which is moved to `place` when it is complete."""


@runtime_checkable
class TrackingTarget(Target, Protocol):
    """A target that shows a run while it trains.

    Attributes:
        default_place: Where it writes if nothing else is asked for.
    """

    @property
    def default_place(self) -> str: ...

    def check(self, place: str) -> None:
        """Finds out before the training whether this place can be written. Errors: any `Exception`."""

    def track(self, place: str, title: str, run: ExportRun) -> Tracker:
        """Opens a run with these parameters at a place: a folder, or the address of a server."""


_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def series_name(metric: str, labels: Labels, level: str, kind: str) -> str:
    """The name of a series: the metric, its labels, the level and the kind, with slashes between.

    All signs but letters of ASCII, digits, `_`, `.` and `-` become `_`, since no tool allows more. A value of whole
    models has the kind `models`.

    >>> series_name("auc", Labels.of(attack="lira"), "global", "typical")
    'auc/attack-lira/global/typical'
    >>> series_name("test_accuracy", Labels(), "local", "")
    'test_accuracy/local/models'
    """
    pieces = [metric, *(f"{name}-{value_text(value)}" for name, value in labels.items), level, kind or "models"]
    return "/".join(clean_piece(piece) for piece in pieces)


def clean_piece(text: str) -> str:
    """A text as one piece of the name of a series or file, never empty and never `.` or `..`.

    >>> clean_piece("../a b"), clean_piece(".."), clean_piece("")
    ('.._a_b', '_', '_')
    """
    piece = _UNSAFE.sub("_", text)[:100]
    return piece if piece.strip(".") else "_"
