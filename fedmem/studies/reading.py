"""Reads the folder of a finished comparison or sweep, and shows comparisons in notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.contracts.events import count
from fedmem.contracts.measurement import Labels
from fedmem.reporting.cells import Value, p_text
from fedmem.studies.comparison import Comparison, Row
from fedmem.studies.stored import read_study
from fedmem.studies.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.studies.study_summary import StudySummary

_LIMIT = 40
"""Rows that are shown in a notebook; further ones are counted."""

_OF_SWEEPS = ("results", "trials")


@dataclass(frozen=True, kw_only=True)
class FinishedStudy:
    """A comparison or sweep as its folder holds it.

    Its tables are attributes, each a tidy frame: `values`, `rounds`, `differences`, `within`, `retention` and `trades`
    of a comparison; `results`, and of a search `trials`, of a sweep.

    Attributes:
        path: the folder.
        title: what was run.
        failures: runs that failed and are left out, each with its cause.
        comparison: its numbers.
    """

    path: Path
    title: str
    failures: tuple[str, ...]
    comparison: Comparison

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of its tables."""
        return tuple(name for name in (*TABLES, *_OF_SWEEPS) if (self.path / f"{name}.parquet").is_file())

    def __getattr__(self, name: str) -> pd.DataFrame:
        """The tables, by their names."""
        if name.startswith("_") or name not in self.tables:
            raise AttributeError(f"this study has no {name!r}; its tables are {', '.join(self.tables)}")
        import pandas as pd

        return pd.read_parquet(self.path / f"{name}.parquet")

    def summary(self) -> StudySummary:
        """The findings, in short: sentences, means and tested differences, as in `summary.json`."""
        from fedmem.studies.study_summary import summarise_study

        return summarise_study(read_study(self.path), self.path)

    def _repr_html_(self) -> str:
        """The study in a notebook."""
        return study_html(self.title, self.comparison, self.failures, self.path)


def read_comparison(folder: Path | str) -> FinishedStudy:
    """The finished comparison or sweep in this folder, `runs/NAME/compare-ID` or `runs/NAME/sweep-NAME`.

    Errors: `FolderError` where it is not there or cannot be read.
    """
    path = Path(folder)
    study = read_study(path)
    return FinishedStudy(path=path, title=study.title, failures=study.failures, comparison=study.comparison)


def study_html(title: str, comparison: Comparison, failures: Sequence[str], path: Path) -> str:
    """A comparison as HTML, without scripts or styles; whatever comes from files is escaped."""
    return "".join(_parts(title, comparison, failures, path))


def _parts(title: str, comparison: Comparison, failures: Sequence[str], path: Path) -> Iterator[str]:
    text = html.escape
    size = f"{count(len(comparison.settings), 'setting')}, {count(len(comparison.seeds), 'seed')}"
    yield f"<div><p><b>{text(title)}</b>: {size}</p>"
    for failure in failures:
        yield f"<p><b>Failed and left out:</b> {text(failure)}</p>"
    for warning in comparison.warnings:
        yield f"<p>WARNING: {text(warning)}</p>"
    rows = comparison.rows
    yield "<table><thead><tr><th>setting</th><th>measure</th><th>kind</th><th>level</th><th>mean</th>"
    yield "<th>difference</th><th>p (adjusted)</th><th></th></tr></thead><tbody>"
    for row in rows[:_LIMIT]:
        yield f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in _cells(row, comparison))}</tr>"
    yield "</tbody></table>"
    if len(rows) > _LIMIT:
        yield f"<p>{len(rows) - _LIMIT} more rows: see the tables in <code>{text(str(path))}</code>.</p>"
    yield f"<p>Folder: <code>{text(str(path))}</code></p></div>"


def _cells(row: Row, comparison: Comparison) -> tuple[str, ...]:
    quantity, mean = row.quantity, row.mean
    difference, p = "", ""
    if row.adjusted is not None:
        scaled = [end * quantity.scale for end in (row.adjusted.value, row.adjusted.low, row.adjusted.high)]
        difference = Value(value=scaled[0], low=scaled[1], high=scaled[2], n=row.adjusted.n).text(quantity.digits)
        p = p_text(row.adjusted.p, 0.0) if row.adjusted.p == row.adjusted.p else ""
    value = Value(value=mean.value, low=mean.low, high=mean.high, n=mean.n, saturated=row.saturated)
    labels = ", ".join((quantity.title, *_further(quantity.labels)))
    setting = comparison.labels[row.setting]
    return (setting, labels, quantity.kind, quantity.level, value.text(quantity.digits), difference, p, row.verdict)


def _further(labels: Labels) -> tuple[str, ...]:
    return labels.only(["fpr", "view"]).words()
