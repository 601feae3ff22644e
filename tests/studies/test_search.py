"""Tests of `fedmem/studies/search.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.cli.study_text import study_text
from fedmem.errors import ScenarioError
from fedmem.scenario.yaml_source import read_file
from fedmem.studies import search
from fedmem.studies.search import quantity_of
from fedmem.studies.sweep import sweep
from fedmem.studies.sweep_folder import make_comparison
from tests.studies.sweep_helpers import RATES, Write

SEARCH = {
    "axes": [{"path": "strategy.kind", "values": ["fedavg", "fedmedian"]}, {"path": "client.lr", "range": [0.05, 0.5]}],
    "seeds": [3],
}


OBJECTIVES = {"test_accuracy": "maximize", "exposure, random_pattern": "minimize"}


def found(write: Write, out: Path, trials: int) -> Any:
    plan = {"study": "s", "trials": trials, "batch": 2, "directions": OBJECTIVES}
    return sweep(write(**SEARCH, search=plan), out=out, jobs=1).trials


def test_a_search_is_the_same_however_often_it_was_interrupted(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    whole = found(write, tmp_path / "whole", 5)
    assert whole.state.tolist() == ["complete"] * 5
    assert len(set(whole["client.lr"])) > 3
    assert whole["client.lr"].dtype == np.float64  # numbers are numbers, as in results.csv
    assert whole["client.lr"].between(0.05, 0.5).all()
    assert set(whole["strategy.kind"]) <= {"fedavg", "fedmedian"}
    run_cells, left = vars(search)["run_cells"], [1]

    def interrupted(*given: Any, **named: Any) -> Any:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return run_cells(*given, **named)

    monkeypatch.setattr(search, "run_cells", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found(write, tmp_path / "parts", 5)  # in the second batch, which was asked for and not told
    monkeypatch.undo()
    assert found(write, tmp_path / "parts", 3).trial.tolist()[:3] == [0, 1, 2]
    assert found(write, tmp_path / "parts", 5).equals(whole)
    front = whole[whole.front]
    assert len(front)
    for _, one in front.iterrows():  # nobody on the front is beaten in both
        better = (whole.test_accuracy > one.test_accuracy) & (
            whole["exposure, random_pattern"] < one["exposure, random_pattern"]
        )
        assert not better.any()


def test_objectives_are_those_of_the_runs_and_have_to_be_one(write: Write, tmp_path: Path) -> None:
    file = write(axes=[RATES], seeds="0:2")
    done = sweep(file, out=tmp_path, jobs=1)
    comparison = make_comparison([cell for cell in done.cells if dict(cell.setting)["client.lr"] == "0.1"], tmp_path)
    rows = done.results[(done.results.setting == "lr=0.1") & (done.results.metric == "exposure")]
    rows = rows[(rows["with"] == "") & (rows.scope == "summary")]
    (value,) = search.objectives(comparison, {"exposure, random_pattern": "minimize"})
    assert value == pytest.approx(rows[rows.level == "global"].value.mean())
    (value,) = search.objectives(comparison, {"exposure, local": "minimize"})
    assert value == pytest.approx(rows[rows.level == "local"].value.mean())
    for text, says in (("nothing", "means nothing"), ("exposure, mislabelled", "means nothing")):
        with pytest.raises(ScenarioError, match=says):
            quantity_of(comparison, text)


def test_misspelt_objective_is_an_error_before_training(write: Write, tmp_path: Path) -> None:
    plan = {"study": "s", "trials": 2, "directions": {"expsure, random_pattern": "minimize"}}
    with pytest.raises(ScenarioError, match=r"study.yaml:1  search.directions: .*did you mean 'exposure'"):
        sweep(write(**SEARCH, search=plan), out=tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_failed_trial_counts_and_is_reported(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    broken = {"kind": "tests.studies.sweep_helpers:Flaky", "marker": str(tmp_path / "never")}
    plan = {"study": "s", "trials": 6, "directions": {"test_accuracy": "maximize"}, "sampler": "random"}
    axes = [{"path": "strategy", "values": [{"kind": "fedavg"}, broken]}, {"path": "client.lr", "range": [0.1, 0.2]}]
    done = sweep(write(axes=axes, search=plan), out=tmp_path, jobs=1)
    assert set(done.trials.state) == {"complete", "fail"}
    assert len(done.failed) == (done.trials.state == "fail").sum()
    is_failed = done.trials.state == "fail"
    assert done.trials[is_failed].test_accuracy.isna().all()
    assert set(done.trials[is_failed].reason) == {"seed 0: no marker"}
    assert set(done.trials[~is_failed].reason) == {""}
    assert set(done.failed_trials) == set(done.trials[is_failed].trial)


PAIRED = [
    {"path": "injections[0].per_client", "values": [1, 500]},
    {"path": "dataset.rows", "values": [400, 9000]},
]
"""Neither value of the first axis is impossible by itself: 500 fit into 9000 rows."""


def test_impossible_combination_is_a_failed_trial_with_reason(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    plan = {"study": "s", "trials": 6, "directions": {"test_accuracy": "maximize"}, "sampler": "random"}
    run = CliRunner().invoke
    done = run(app, ["sweep", str(write(axes=PAIRED, search=plan)), "--out", str(tmp_path), "--jobs", "1"])
    assert done.exit_code == 1
    trials = pd.read_csv(tmp_path / "tiny" / "sweep-study" / "trials.csv", keep_default_na=False)
    is_wrong = (trials["injections[0].per_client"] == 500) & (trials["dataset.rows"] == 400)
    assert 0 < is_wrong.sum() < len(trials)
    assert (trials[is_wrong].state == "fail").all()
    assert trials[is_wrong].reason.str.contains("rows minus").all()
    assert f"of the search failed (see trials.csv):\n  trial {trials[is_wrong].trial.iloc[0]}: " in done.output


@pytest.mark.parametrize(
    ("axis", "named"),
    [
        ({"path": "injections[0].per_client", "values": [1, 2, 500]}, "per_client=500"),
        ({"path": "injections[0].per_client", "range": [1, 500]}, "per_client=500"),
        ({"zip": {"injections[0].per_client": [1, 500], "rounds": [2, 3]}}, "per_client=500, rounds=3"),
    ],
)
def test_every_value_of_a_search_is_checked_first(write: Write, tmp_path: Path, axis: Any, named: str) -> None:
    plan = {"study": "s", "trials": 2, "directions": {"test_accuracy": "maximize"}}
    file = write(axes=[{"path": "client.lr", "values": [0.1, 0.2]}, axis], search=plan)
    for call in (
        lambda: sweep(file, out=tmp_path / "out", jobs=1),
        lambda: study_text(file, (), "", (), tmp_path, sweep=read_file(file)),
    ):
        with pytest.raises(ScenarioError, match="rows minus") as error:
            call()
        assert len(error.value.problems) == 1
        assert f"(setting lr=0.1, {named})" in str(error.value.problems[0])
    assert not (tmp_path / "out").exists()


def test_a_value_that_is_always_wrong_is_reported_with_its_line(write: Write, tmp_path: Path) -> None:
    plan = {"study": "s", "trials": 2, "directions": {"test_accuracy": "maximize"}}
    file = write(axes=[{"path": "client.lr", "values": [0.1, -1.0]}], search=plan)
    with pytest.raises(ScenarioError, match=r"study.yaml:1  client.lr=-1"):
        sweep(file, out=tmp_path / "out", jobs=1)
