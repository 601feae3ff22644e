"""MLflow's own client finds parameters, metrics by round and artifacts in the local store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.export import ExportContent, ExportRun, Scalar
from fedmem.exports.mlflow import Mlflow
from fedmem.sharing.export import content_of, export
from tests.sharing.sharing_helpers import finished_comparison, finished_run

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def store_of(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=folder.absolute().as_uri())


def runs_of(client: Any, title: str) -> list[Any]:
    experiment = client.get_experiment_by_name(title)
    return list(client.search_runs([experiment.experiment_id]))


def test_a_run_is_read_back_with_its_artifacts(tmp_path: Path) -> None:
    """Read after the folder has been moved to its place, as a user does."""
    folder = export(finished_run(), "mlflow", out=tmp_path / "out").folder
    (source,) = content_of(finished_run()).runs
    client = store_of(folder)
    (run,) = runs_of(client, "tiny")
    assert run.info.run_name == source.name
    assert run.info.status == "FINISHED"
    assert run.info.end_time == int(1000 * source.finished)
    assert run.data.params == source.parameters
    assert run.data.tags["fedmem.verdict"]
    name = "memorisation/local/typical"
    for series in (name, f"{name}.low", f"{name}.high", f"summary/{name}"):
        history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, series)]
        assert sorted(history) == [(point.step, point.value) for point in source.scalars if point.name == series] != []
    assert set(run.data.metrics) == {scalar.name for scalar in source.scalars}
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "report.html",
        "summary.json",
        "scenario.yaml",
    }
    place = client.download_artifacts(run.info.run_id, "summary.json", str(tmp_path))
    assert Path(place).read_bytes() == (finished_run() / "summary.json").read_bytes()


def test_a_comparison_has_a_run_for_each_setting_and_seed(tmp_path: Path) -> None:
    content = content_of(finished_comparison())
    Mlflow().write(content, tmp_path, tmp_path)
    runs = {run.info.run_name: run for run in runs_of(store_of(tmp_path), content.title)}
    assert {name: run.data.params for name, run in runs.items()} == {run.name: run.parameters for run in content.runs}


def test_hostile_names_and_long_values_are_taken(tmp_path: Path) -> None:
    run = ExportRun(
        name="../x",
        parameters={"a[0]/../../b": "v" * 10_000, "é": "1", "ü": "2", "..": "3"},
        notes={"verdict": "w" * 9000},
    )
    Mlflow().write(ExportContent(title="../t", id="i", runs=[run]), tmp_path / "in", tmp_path / "in")
    (stored,) = runs_of(store_of(tmp_path / "in"), "../t")
    assert stored.data.params == {"a_0_.._.._b": "v" * 6000, "_": "1", "_-2": "2", "_-3": "3"}
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_tracked_run_grows_and_ends(tmp_path: Path) -> None:
    target, place = Mlflow(), str(tmp_path)
    target.check(place)
    log = target.track(place, "live", ExportRun(name="live/1", parameters={"seed": "1"}))
    log.add([Scalar(name="a", step=1, value=0.5)])
    client = store_of(tmp_path)
    (run,) = runs_of(client, "live")
    assert (run.info.status, run.data.metrics, run.data.params) == ("RUNNING", {"a": 0.5}, {"seed": "1"})
    log.close(None)
    assert runs_of(client, "live")[0].info.status == "FAILED"
    target.track(place, "live", ExportRun(name="live/2")).close(ExportRun(name="live/2", parameters={"b": "2"}))
    assert {run.info.status for run in runs_of(client, "live")} == {"FAILED", "FINISHED"}


def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    Mlflow().write(ExportContent(title="t", id="i", runs=[ExportRun(name="r")]), tmp_path, tmp_path)
    assert dict(os.environ) == before


def test_the_default_place_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Mlflow().default_place == "tracking/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://example.org")
    assert Mlflow().default_place == "https://example.org"
