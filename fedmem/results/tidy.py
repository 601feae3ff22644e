"""Tidy frames of a run: one row a number, without the rows that nobody asked for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from fedmem.contracts.measurement import NO_CLIENT, LabelValue, Level, Scope
from fedmem.errors import ComponentError
from fedmem.results.conditions import COLUMN as CONDITION
from fedmem.results.conditions import condition_of
from fedmem.results.run_summary import FILE, Measured, RunSummary
from fedmem.wording import choices

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from fedmem.results.read import Run

_PLACE = ("scope", "run", "round", "level", "client", "client_name", "subject", "source", "metric")
_NUMBERS = ("value", "low", "high", "n")
_TESTS = ("null", "p", "p_adjusted", "num_tests")
_HIDDEN = ("place", "statistic", "kind", CONDITION)
"""Labels that a row is chosen by, or that `kind` says already, and what `with_condition` adds."""


def measurement_frame(table: pa.Table) -> pd.DataFrame:
    """Rows of measurements as a frame: texts as text, and whole numbers of which some are missing as `Int32` or so."""
    frame: pd.DataFrame = table.to_pandas()
    integer_types = {
        item.name: str(item.type).capitalize() for item in table.schema if str(item.type).startswith("int")
    }
    types: dict[str, Any] = {column: kind for column, kind in integer_types.items() if table[column].null_count}
    types |= {column: str for column in frame.columns if frame[column].dtype == "category"}
    return frame.astype(types)


def with_condition(frame: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The frame with a column that says what its values are conditional on, where they are."""
    condition = condition_of(run.scenario)
    return frame.assign(**{CONDITION: condition}) if condition else frame


_OVERALL = ("", "all")
"""The subjects of rows about whole models, and about the examples of all kinds."""


def frame_of_values(
    run: Run, measure: str, *, level: Level | None, kind: str | None, scope: Scope, statistic: str
) -> pd.DataFrame:
    """The frame of `Run.values`. Errors: `ComponentError` with choices."""
    rows = run.measurements
    kinds = list(dict.fromkeys(run.audit["kind"].tolist()))
    _check("scope", scope, get_args(Scope))
    _check("measure", measure, sorted(rows["metric"].unique()))
    if level is not None:
        _check("level", level, get_args(Level))
    if kind is not None:
        _check("kind", kind, [*kinds, *(name for name in _OVERALL if name)])
    rows = rows[(rows["scope"] == scope) & rows["subject"].isin([*kinds, *_OVERALL])]
    if "place" in rows:
        rows = rows[rows["place"].fillna("").isin(["", "owner"])]
    rows = rows if level is None else rows[rows["level"] == level]
    rows = rows if kind is None else rows[rows["subject"] == kind]
    if "statistic" in rows:
        statistics = rows["statistic"].fillna("")
        known = sorted(statistics[rows["metric"] == measure].unique())
        if known and statistic not in known:
            names = [name or "'' (the measure itself)" for name in known]
            raise ComponentError("statistic", f"{measure} has no statistic {statistic!r}{choices(statistic, names)}")
        rows = rows[statistics == statistic]
    selection = rows[rows["metric"] == measure]
    labels = [
        name for name in rows.columns if name not in (*_PLACE, *_NUMBERS, *_HIDDEN) and _has_values(selection[name])
    ]
    keys = ["subject", "level", "round", "run", "client", "source", *labels]
    frame = selection[[*keys, *_NUMBERS, *(["client_name"] if "client_name" in rows else [])]]
    for name in ("null", "p"):
        others = rows[rows["metric"] == f"{measure}.{name}"][[*keys, "value"]].drop_duplicates(keys)
        frame = frame.merge(others.rename(columns={"value": name}), on=keys, how="left")
    adjusted = _adjusted_values(run, measure, statistic) if scope == "summary" else {}
    if adjusted:
        about = frame[["subject", "level", "source", *labels]].astype(object).fillna("")
        about = about if frame["source"].nunique() > 1 else about.assign(source="")
        rows_of = about.itertuples(index=False, name=None)
        found = [
            adjusted.get(_about(row[0], row[1], row[2], dict(zip(labels, row[3:], strict=True)))) for row in rows_of
        ]
        frame["p_adjusted"] = [math.nan if value is None else value.p_adjusted for value in found]
        frame["num_tests"] = [0 if value is None else value.num_tests for value in found]
    has_clients = bool((frame["client"] != NO_CLIENT).any())
    columns = [
        "kind",
        "level",
        *(["round"] if scope in ("run", "round") else []),
        *(["run"] if scope in ("run", "run_summary") else []),
        *(["client", "client_name"] if has_clients else []),
        *(["source"] if frame["source"].nunique() > 1 else []),
        *labels,
        *_NUMBERS,
        *(_TESTS if adjusted else _TESTS[:2]),
    ]
    return frame.rename(columns={"subject": "kind"})[columns].reset_index(drop=True)


def _adjusted_values(run: Run, measure: str, statistic: str) -> dict[Hashable, Measured]:
    """The values of the summary by their rows; empty where a folder has no summary."""
    if not (run.path / FILE).is_file():
        return {}
    values = (value for kind in run.summary().kinds for one in kind.findings for value in (one.local, one.aggregate))
    keys = ((value.keys[0], value) for value in values if value is not None and value.keys)
    return {
        _about(key.subject, key.level, key.source, key.labels): value
        for key, value in keys
        if key.metric == measure and key.labels.get("statistic", "") == statistic
    }


def _about(subject: str, level: str, source: str, labels: Mapping[str, LabelValue]) -> Hashable:
    shown = {(name, value) for name, value in labels.items() if name not in _HIDDEN and value != ""}
    return subject, level, source, frozenset(shown)


def _has_values(column: pd.Series[Any]) -> bool:
    return bool((column.notna() & (column.astype(str) != "")).any())


def _check(name: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise ComponentError(name, f"this run has no {name} {value!r}{choices(value, list(allowed))}")


def frame_of_summary(summary: RunSummary) -> pd.DataFrame:
    """The first screen as a frame: one row for each kind, measure and level, or retention.

    The columns are `kind`, `measure`, `shows`, `level` (`local`, `global` or `retention`), `value`, `low`, `high`, `n`,
    `null`, `p`, `p_adjusted`, `num_tests`, `state` and `saturated`. `p_adjusted` decides, and `num_tests` is the size
    of its family. Values of models have no kind.
    """
    import pandas as pd

    rows: list[Mapping[str, Any]] = []
    for kind in summary.kinds:
        for finding in kind.findings:
            about = {"kind": kind.kind, "measure": finding.title, "shows": finding.shows}
            sides = (("local", finding.local), ("global", finding.aggregate), ("retention", finding.retention))
            rows += [about | {"level": level} | _numbers(value) for level, value in sides if value is not None]
    for models in summary.models:
        about = {"kind": "", "measure": models.title, "shows": ""}
        for level, value in (("local", models.local), ("global", models.aggregate)):
            if value is not None:
                rows.append(about | {"level": level} | _numbers(value) | {"state": ""})
    columns = ["kind", "measure", "shows", "level", *_NUMBERS, *_TESTS, "state", "saturated"]
    return pd.DataFrame(rows, columns=columns)


def _numbers(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in (*_NUMBERS, *_TESTS, "state", "saturated")}
