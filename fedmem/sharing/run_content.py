"""A finished run as the content of an export: tables, and series by round, kind and level."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fedmem.contracts.export import ExportContent, ExportRun, ExportTable, Scalar, series_name
from fedmem.contracts.measurement import NO_CLIENT, Labels, Measurement
from fedmem.errors import RunError
from fedmem.results.columns import COLUMNS
from fedmem.results.conditions import COLUMN as CONDITION
from fedmem.results.conditions import MEANS as CONDITION_MEANS
from fedmem.weights.origins import find_origin

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.results.read import Run

SUMMARY = "summary/"
"""Before the names of series that have one point: the value over all runs and observed rounds."""

_FILES = ("report.html", "summary.json", "scenario.yaml")
"""The files of a run that go with an export, where they are there."""


@dataclass(kw_only=True)
class Points:
    """Collects the points of series, each series under a name of its own.

    Names that are equal after cleaning get `-2`, `-3` and so on, in the order in which they come.

    Attributes:
        scalars: The points so far.
        left_out: How many values were not finite.

    Examples:
        >>> points = Points()
        >>> points.add("", ("auc", Labels(), "global", "a b"), 3, 0.7, 0.6, math.nan)
        >>> points.add("", ("auc", Labels(), "global", "a/b"), 3, math.nan, math.nan, math.nan)
        >>> points.add("", ("auc", Labels(), "global", "a/b"), 4, 0.5, math.nan, math.nan)
        >>> [(scalar.name, scalar.step) for scalar in points.scalars], points.left_out
        ([('auc/global/a_b', 3), ('auc/global/a_b.low', 3), ('auc/global/a_b-2', 4)], 1)
    """

    scalars: list[Scalar] = field(default_factory=list)
    left_out: int = 0
    _names: dict[object, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def add(self, prefix: str, about: tuple[str, Labels, str, str], step: int, *numbers: float) -> None:
        """Adds value, low and high of metric, labels, level and kind at a step, as far as they are finite."""
        name = self._name(prefix, about)
        self.left_out += not math.isfinite(numbers[0])
        for ending, number in zip(("", ".low", ".high"), numbers, strict=True):
            if math.isfinite(number):
                self.scalars.append(Scalar(name=f"{name}{ending}", step=step, value=number))

    def _name(self, prefix: str, about: tuple[str, Labels, str, str]) -> str:
        if (prefix, about) not in self._names:
            self._names[prefix, about] = unique_name(prefix + series_name(*about), self._taken)
        return self._names[prefix, about]


def unique_name(name: str, taken: set[str]) -> str:
    """A name that is not taken, with a number where it was; it is taken from now on.

    >>> taken = {"a"}
    >>> unique_name("a", taken), unique_name("a", taken)
    ('a-2', 'a-3')
    """
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free)
    return free


def run_content(run: Run) -> ExportContent:
    """The content of a finished run."""
    points = Points()
    steps = int(run.scenario.get("rounds") or 0)
    for row in _rows_of_kinds(run.rows()):
        reading = row.reading
        labels = reading.labels.without("place") if reading.labels.get("place") == "owner" else reading.labels
        about = (reading.metric, labels, row.level, reading.subject)
        prefix, step = (SUMMARY, steps) if row.round is None else ("", row.round)
        points.add(prefix, about, step, reading.value, reading.low, reading.high)
    name = str(run.scenario.get("name", run.path.parent.name))
    return ExportContent(
        title=name,
        id=run.path.name,
        tables=run_tables(run),
        runs=[
            ExportRun(
                name=f"{name}/{run.path.name}",
                parameters=parameters_of(run.scenario),
                scalars=points.scalars,
                files={file: run.path / file for file in _FILES if (run.path / file).is_file()},
                notes=notes_of(run),
                finished=finished_seconds(run.manifest),
            )
        ],
        left_out=points.left_out,
        weights=lambda: find_origin(str(run.path)).read(),
    )


def _rows_of_kinds(rows: Iterable[Measurement]) -> Iterator[Measurement]:
    """The rows over all runs, of kinds or whole models.

    Rows of single runs, examples and clients are in tables alone, and so are differences.
    """
    for row in rows:
        is_single = row.run is not None or row.client != NO_CLIENT or row.reading.subject.isdecimal()
        if not is_single and row.reading.labels.get("contrast") is None:
            yield row


def parameters_of(scenario: Mapping[str, Any]) -> dict[str, str]:
    """Every value of a scenario by its path, as text.

    >>> parameters_of({"runs": 4, "probes": [{"kind": "utility"}], "model": {"hidden": []}, "start": None})
    {'runs': '4', 'probes.0.kind': 'utility', 'model.hidden': '[]', 'start': 'null'}
    """
    return dict(_leaves("", scenario))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    if items:
        for key, item in items:
            yield from _leaves(f"{path}.{key}" if path else str(key), item)
    else:
        yield path, "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def notes_of(run: Run) -> dict[str, str]:
    """The verdict and the scenario in writing; no verdict where the run has no summary."""
    notes = {"scenario": (run.path / "scenario.yaml").read_text(encoding="utf-8")}
    try:
        verdicts = [sentence.text for sentence in run.summary().verdicts]
    except RunError:
        return notes
    return {"verdict": "\n".join(verdicts), **notes}


def finished_seconds(manifest: Mapping[str, Any]) -> float:
    """When a run was finished, in seconds since 1970; 0 where its manifest has no such time.

    >>> finished_seconds({"finished": "1970-01-01T00:01:00+00:00"}), finished_seconds({})
    (60.0, 0.0)
    """
    try:
        return datetime.fromisoformat(manifest["finished"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0


def run_tables(run: Run) -> list[ExportTable]:
    """The tables of a run: all that is tabular, without inputs and reconstructions."""
    from fedmem.reporting.measures import label_meanings

    frames = {
        "summary": (run.table, "one value of the first screen"),
        "measurements": (lambda: run.measurements, "one reading or estimate, with its interval and its count"),
        "evidence": (lambda: run.evidence, "one observed model on one example"),
        "signals": (lambda: run.signals, "one signal of one observed model on one audit example"),
        "set_signals": (
            lambda: run.set_signals,
            "one signal of one observed model on one example of test or reference data",
        ),
        "ranks": (lambda: _ranks(run), "one canary among its references, by one observed model"),
        "audit": (lambda: run.audit.drop(columns=["inputs", "is_in"]), "one audit example, without its input"),
        "inclusion": (lambda: _inclusion(run), "one audit example in one run"),
        "participation": (lambda: run.participation, "one client in one round of one run"),
    }
    sources = {"summary": "summary.json", "signals": "signals.parquet", "set_signals": "set_signals.parquet"}
    return [
        ExportTable(
            name=name,
            means=means,
            frame=frame,
            meanings={**label_meanings(), CONDITION: CONDITION_MEANS, **COLUMNS[name]},
        )
        for name, (frame, means) in frames.items()
        if name not in sources or (run.path / sources[name]).is_file()
    ]


def _ranks(run: Run) -> pd.DataFrame:
    """The references with a row for each canary."""
    frame = run.references.drop(columns="quantiles")
    frame = frame.explode(["subjects", "less", "ties"], ignore_index=True).rename(columns={"subjects": "subject"})
    frame = frame.dropna(subset=["subject"])
    return frame.astype({"subject": "int64", "less": "int64", "ties": "int64"})


def _inclusion(run: Run) -> pd.DataFrame:
    """The inclusion coins, one row each."""
    frame = run.audit[["subject", "is_in"]].explode("is_in", ignore_index=True)
    frame.insert(0, "run", frame.groupby("subject").cumcount())
    return frame.astype({"is_in": bool})
