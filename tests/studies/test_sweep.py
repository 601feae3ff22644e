"""Sweeps: what axes mean, nothing twice, failures noted and retried alone, searches that go on where they were."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.errors import RunError, ScenarioError
from fedmem.results.read import read
from fedmem.studies import search
from fedmem.studies.grid import cross, label_of
from fedmem.studies.search import quantity_of
from fedmem.studies.sweep import sweep
from fedmem.studies.sweep_file import Axis, load_sweep, text_of_schema
from fedmem.studies.sweep_folder import make_comparison
from strategies._rule import Arrays, Round, RuleStrategy, share, weighted_mean
from tests.tiny import tiny

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "sweeps"
CODE = "from fedmem.cli.main import main; main()"


@dataclass(frozen=True, kw_only=True)
class Flaky:
    """Averages if a file is there, and fails otherwise."""

    marker: str

    def make(self, cohort_size: int) -> Any:
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        return {}

    def payload(self, state: Arrays, clients: Any) -> Arrays:
        return {}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        if not Path(self.marker).exists():
            raise RunError("no marker")
        return weighted_mean(rnd.sent, share(rnd.weights, rnd.present)), state


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A sweep file beside its scenario."""
    base = tiny(
        runs=2,
        rounds=2,
        injections=[{"kind": "random_pattern", "per_client": 1}],
        probes=[{"kind": "utility"}],
        estimators=[{"kind": "exposure"}],
        bootstrap=20,
    )
    (tmp_path / "tiny.yaml").write_text(base.to_yaml())

    def made(name: str = "study.yaml", **content: Any) -> Path:
        (tmp_path / name).write_text(json.dumps({"base": "tiny.yaml", **content}))
        return tmp_path / name

    return made


RATES = {"path": "client.lr", "values": [0.1, 0.3]}


def test_axes_become_settings() -> None:
    assert [label_of(one) for one in Axis(path="client.lr", range=(1, 4), steps=4).options()] == [
        "lr=1",
        "lr=2",
        "lr=3",
        "lr=4",
    ]
    assert Axis(path="runs", range=(2, 3), steps=5).options() == [(("runs", "2"),), (("runs", "3"),)]  # none twice
    paired = Axis(zip={"clients": (4, 8), "sampler.size": (2, 4)}).options()
    assert paired == [(("clients", "4"), ("sampler.size", "2")), (("clients", "8"), ("sampler.size", "4"))]
    nested = Axis(path="sampler", values=({"kind": "uniform", "size": 2},)).options()
    assert nested == [(("sampler", "{kind: uniform, size: 2}"),)]


def test_a_grid_gives_one_tidy_frame_and_goes_on_where_it_was(write: Write, tmp_path: Path) -> None:
    axes = [RATES, {"zip": {"clients": [4, 5], "sampler.size": [2, 3]}}]
    first = sweep(write(axes=axes, seeds="0:1", set={"bootstrap": 30}), out=tmp_path, jobs=1)
    assert first.path == tmp_path / "tiny" / "sweep-study"
    assert len(first.cells) == 4
    frame = first.results
    assert set(frame.columns) >= {"setting", "client.lr", "clients", "sampler.size", "seed", "metric", "value", "n"}
    cell = first.cells[3]
    assert dict(cell.setting) == {"client.lr": "0.3", "clients": "5", "sampler.size": "3"}
    assert cell.scenario.bootstrap == 30
    measured = read(tmp_path / "tiny" / cell.scenario.id).measurements
    chosen = measured[
        (measured.metric == "test_accuracy") & (measured.level == "global") & (measured.scope == "summary")
    ]
    own = frame[
        (frame.setting == label_of(cell.setting)) & (frame.metric == "test_accuracy") & (frame.level == "global")
    ]
    assert own.value.tolist() == chosen.value.tolist()
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").glob("[!.]*/manifest.json")}
    more = sweep(write(axes=axes, seeds=[0, 7], set={"bootstrap": 30}), out=tmp_path, jobs=1)
    assert len(more.cells) == 8
    assert set(more.results.seed) == {0, 7}
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert (more.path / "results.csv").exists()


def test_failures_are_noted_and_retried_alone(write: Write, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    flaky = {"kind": "tests.studies.test_sweep:Flaky", "marker": str(marker)}
    file = write(axes=[{"path": "strategy", "values": [{"kind": "fedavg"}, flaky]}], seeds="0:2")
    done = sweep(file, out=tmp_path, jobs=1)
    assert len(done.failed) == 2
    assert set(done.failed.values()) == {"no marker"} or all("no marker" in why for why in done.failed.values())
    assert json.loads((done.path / "failed.json").read_text()) == done.failed
    assert set(done.results.setting) == {"fedavg"}
    marker.touch()
    untried = sweep(file, out=tmp_path, jobs=1)
    assert untried.failed == done.failed  # not tried again unless asked for
    when = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").glob("[!.]*/manifest.json")}
    marker.unlink()
    assert len(sweep(file, out=tmp_path, jobs=1, retry_failed=True).failed) == 2
    marker.touch()
    mended = sweep(file, out=tmp_path, jobs=1, retry_failed=True)
    assert not mended.failed
    assert json.loads((done.path / "failed.json").read_text()) == {}
    assert len(set(mended.results.setting)) == 2
    assert all(path.stat().st_mtime_ns == then for path, then in when.items())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"axes": []}, "should have at least 1 entry"),
        ({"axes": [{"path": "client.lr"}]}, "should have one of values, range and zip, got none"),
        ({"axes": [{**RATES, "range": [1, 2]}]}, "got values and range"),
        ({"axes": [{"values": [1]}]}, "should name its path"),
        ({"axes": [{"path": "client.lr", "range": [2, 1]}]}, "should have a range that rises"),
        ({"axes": [{"path": "client.lr", "range": [0.0, 1.0], "scale": "log"}]}, "from above 0 on a log scale"),
        ({"axes": [{"zip": {"clients": [1], "rounds": [1, 2]}}]}, "as many values for each path"),
        ({"axes": [RATES, RATES]}, "should change client.lr in one place only"),
        ({"axes": [RATES], "set": {"client.lr": 1}}, "should change client.lr in one place only"),
        ({"axes": [RATES], "set": {"seed": 3}}, "should not set seed, which is taken from seeds"),
        ({"axes": [{"path": "seed", "values": [1]}]}, "--seeds"),
        ({"axes": [RATES], "seeds": "0-3"}, "should be a range such as 0:10"),
        ({"axes": [RATES], "colour": 1}, "unknown key"),
        ({"axes": [RATES], "search": {"study": "a", "trials": 0, "directions": {"x": "up"}}}, "maximize"),
        ({"axes": [{"path": "client.lr", "values": [-1]}]}, "client.lr"),
        ({"axes": [RATES], "base": "nowhere.yaml"}, "there is no such file"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(write: Write, tmp_path: Path, content: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        sweep(write(**content), out=tmp_path)
    assert says in str(error.value)


def test_mistakes_are_told_with_their_place_in_the_sweep_file(write: Write, tmp_path: Path) -> None:
    file = write()
    for text, says in (
        ("base: tiny.yaml\nset: {client.lr: -1}\naxes:\n- {path: rounds, values: [2]}\n", f"{file}:2  client.lr=-1"),
        ("base: tiny.yaml\naxes:\n- {path: rounds, values: [2]}\n- {path: client.lr, values: [-1]}\n", f"{file}:4  cl"),
        ("base: no.yaml\naxes:\n- {path: rounds, values: [2]}\n", f"{file}:1  base: there is no such file"),
    ):
        file.write_text(text)
        with pytest.raises(ScenarioError) as error:
            sweep(file, out=tmp_path)
        assert says in str(error.value)
        assert "--" not in str(error.value)


def test_sweeps_and_scenarios_are_told_apart_and_folders_are_tried(write: Write, tmp_path: Path) -> None:
    run, file = CliRunner().invoke, str(write(axes=[RATES]))
    for command in ("run", "check"):
        done = run(app, [command, file])
        assert done.exit_code == 2
        assert f"this is a sweep file, not a scenario; run it with: fedmem sweep {file}" in done.output
    done = run(app, ["sweep", str(tmp_path / "tiny.yaml")])
    assert done.exit_code == 2
    assert "this is a scenario, not a sweep of one; run it with: fedmem run" in done.output
    (tmp_path / "file").touch()
    done = run(app, ["sweep", file, "--out", str(tmp_path / "file" / "z")])
    assert done.exit_code == 2
    assert "cannot hold the results" in done.output


def test_a_file_that_is_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ScenarioError, match="a sweep is a mapping"):
        sweep(tmp_path / "list.yaml")
    with pytest.raises(ScenarioError, match="no such file"):
        sweep(tmp_path / "nothing.yaml")


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
    whole = found(write, tmp_path / "whole", 6)
    assert whole.state.tolist() == ["complete"] * 6
    assert len(set(whole["client.lr"])) > 3
    run_cells, left = vars(search)["run_cells"], [1]

    def interrupted(*given: Any, **named: Any) -> Any:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return run_cells(*given, **named)

    monkeypatch.setattr(search, "run_cells", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found(write, tmp_path / "parts", 6)  # in the second batch, which was asked for and not told
    monkeypatch.undo()
    assert found(write, tmp_path / "parts", 3).trial.tolist()[:3] == [0, 1, 2]
    assert found(write, tmp_path / "parts", 6).equals(whole)
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
    rows = rows[rows["with"] == ""]
    (value,) = search.objectives(comparison, {"exposure, random_pattern": "minimize"})
    assert value == pytest.approx(rows[rows.level == "global"].value.mean())
    (value,) = search.objectives(comparison, {"exposure, local": "minimize"})
    assert value == pytest.approx(rows[rows.level == "local"].value.mean())
    for text, says in (("nothing", "means nothing"), ("exposure, mislabelled", "means nothing")):
        with pytest.raises(ScenarioError, match=says):
            quantity_of(comparison, text)


def test_a_misspelt_objective_is_told_before_any_training(write: Write, tmp_path: Path) -> None:
    plan = {"study": "s", "trials": 2, "directions": {"expsure, random_pattern": "minimize"}}
    with pytest.raises(ScenarioError, match=r"study.yaml:1  search.directions: .*did you mean 'exposure'"):
        sweep(write(**SEARCH, search=plan), out=tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_a_trial_that_fails_counts_and_is_told(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    broken = {"kind": "tests.studies.test_sweep:Flaky", "marker": str(tmp_path / "never")}
    plan = {"study": "s", "trials": 6, "directions": {"test_accuracy": "maximize"}, "sampler": "random"}
    axes = [{"path": "strategy", "values": [{"kind": "fedavg"}, broken]}, {"path": "client.lr", "range": [0.1, 0.2]}]
    done = sweep(write(axes=axes, search=plan), out=tmp_path, jobs=1)
    assert set(done.trials.state) == {"complete", "fail"}
    assert len(done.failed) == (done.trials.state == "fail").sum()
    assert done.trials[done.trials.state == "fail"].test_accuracy.isna().all()


def test_the_command(write: Write, tmp_path: Path) -> None:
    run = CliRunner().invoke
    axes = [{"path": "strategy.kind", "values": ["fedavg", "tests.execution.test_many_scenarios:Breaking"]}]
    failed = run(app, ["sweep", str(write(axes=axes)), "--out", str(tmp_path), "--jobs", "1"])
    assert failed.exit_code == 1
    assert "1 of 2 runs failed; --retry-failed" in failed.output
    assert "Breaking, seed 0: " in failed.output
    assert run(app, ["sweep", str(write(axes=[])), "--out", str(tmp_path)]).exit_code == 2
    right = run(app, ["sweep", str(write(axes=[RATES])), "--out", str(tmp_path), "--jobs", "1", "--quiet"])
    assert right.exit_code == 0
    assert (Path(right.output.strip()) / "results.parquet").exists()
    assert fedmem.sweep is sweep


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_right(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == f"# fedmem sweep experiments/sweeps/{path.name}"
    assert lines[1] == "# yaml-language-server: $schema=./sweep.schema.json"
    assert "?" in lines[2]
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(text_of_schema()))
    plan, base = load_sweep(path)
    assert len(cross(base, plan.settings(), plan.all_seeds[:1], plan.overrides)) == len(plan.settings())


def test_the_schema_is_that_of_this_version() -> None:
    assert (FOLDER / "sweep.schema.json").read_text() == text_of_schema()
    shown = CliRunner().invoke(app, ["schema", "--sweep"])
    assert shown.output == text_of_schema()


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(write: Write, tmp_path: Path) -> None:
    file = write(
        axes=[{"path": "client.lr", "range": [0.1, 0.4], "steps": 8}], seeds="0:2", set={"rounds": 12, "runs": 16}
    )
    given = ["sweep", str(file), "--out", str(tmp_path / "out"), "--jobs", "1", "--quiet"]
    process = subprocess.Popen([sys.executable, "-c", CODE, *given])
    place, end = tmp_path / "out" / "tiny", time.monotonic() + 90
    while not list(place.glob("[!.]*/manifest.json")) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = {path: path.stat().st_mtime_ns for path in place.glob("[!.]*/manifest.json")}
    assert 0 < len(there) < 16
    done = sweep(file, out=tmp_path / "out", jobs=2)
    assert not done.failed
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert len(list(place.glob("[!.]*/manifest.json"))) == 16
