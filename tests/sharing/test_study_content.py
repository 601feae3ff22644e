"""The content of a comparison or sweep: all tables, and a line for each setting and seed that did not fail."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from fedmem.contracts.export import series_name
from fedmem.contracts.measurement import Labels
from fedmem.sharing.study_content import study_content
from fedmem.studies.reading import read_comparison
from fedmem.studies.tables import TABLES, put
from tests.sharing.sharing_helpers import finished_comparison, finished_sweep


@pytest.mark.parametrize("study", [finished_comparison, finished_sweep])
def test_series_have_values_and_intervals_of_the_tables(study: object) -> None:
    assert callable(study)
    content = study_content(study())
    frames = read_comparison(study())
    frame = frames.values if "values" in frames.tables else frames.results[frames.results["scope"] == "summary"]
    runs = {run.name: {scalar.name: scalar.value for scalar in run.scalars} for run in content.runs}
    assert list(runs) == ["fedavg/seed-1", "fedmedian/seed-0", "fedmedian/seed-1"]
    rows = frame[(frame["metric"] == "memorisation") & (frame["with"] == "")]
    compared = 0
    for _, row in rows.iterrows():
        name = f"summary/{series_name('memorisation', Labels(), row['level'], row['kind'])}"
        for ending, column in (("", "value"), (".low", "low"), (".high", "high")):
            value = runs[f"{row['setting']}/seed-{row['seed']}"].get(f"{name}{ending}", math.nan)
            assert value == row[column] or math.isnan(row[column])
            compared += not math.isnan(value)
    assert compared >= 15
    assert content.runs[0].parameters == {"strategy.kind": "fedavg", "seed": "1"}


def test_rounds_are_steps() -> None:
    content = study_content(finished_comparison())
    steps = {scalar.step for scalar in content.runs[0].scalars if scalar.name == "test_accuracy/global/models"}
    frame = read_comparison(finished_comparison()).rounds
    assert (
        steps == set(frame.loc[(frame["metric"] == "test_accuracy") & (frame["level"] == "global"), "round"]) == {0, 2}
    )


def test_all_tables_and_columns_of_a_study_are_described() -> None:
    for folder, names in ((finished_comparison(), list(TABLES)), (finished_sweep(), ["results"])):
        tables = study_content(folder).tables
        assert [table.name for table in tables] == names
        assert [name for table in tables for name in table.frame() if name not in table.meanings] == []


def test_columns_of_a_search_are_described(tmp_path: Path) -> None:
    folder = tmp_path / "sweep-found"
    shutil.copytree(finished_sweep(), folder)
    put(folder, "trials", [{"trial": 0, "state": "fail", "reason": "no", "client.lr": 0.1, "auc": 0.5, "front": False}])
    (results, trials) = study_content(folder).tables
    assert [results.name, trials.name] == ["results", "trials"]
    assert set(trials.frame()) - set(trials.meanings) <= {"client.lr", "auc"}
    assert trials.meanings["reason"] == "why the trial failed"
    assert results.meanings["reason"] == "why a retention is undefined"
    assert "objective" in trials.other


def test_endings_of_columns_are_described() -> None:
    meanings = study_content(finished_comparison()).tables[0].meanings
    assert meanings["mean_low"] == "lower end of the interval of mean: the mean over the seeds"
    assert meanings["difference_low"].startswith("lower end of its interval, simultaneous")
