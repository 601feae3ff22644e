"""Runs of MLflow: in a folder of their own, or at any tracking address."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmem.contracts.export import ExportContent, ExportRun, Scalar, Tracker, clean_piece

_BATCH = 900
"""Metrics in one request; MLflow takes 1000."""

_MAX_TEXT = 6000
"""Characters of a parameter; longer texts are cut."""

_DEFAULTS = {
    # the local folder is a store that MLflow asks its users to allow
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # a server that does not answer must not hold up the training for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
"""Environment variables of MLflow that are set while it is called, where the user has not set them."""


class Mlflow:
    """An experiment with the name of the scenario; a run for each run, or for each setting and seed of a study.

    The parameters are those of the scenario. Metrics have the round as their step. The ends of an interval are metrics
    of their own, with the endings `.low` and `.high`. An undefined or infinite number is left out. The report, the
    summary and the scenario are artifacts.
    """

    extra = "mlflow"
    package = "mlflow"
    has_tables = False
    open_with = "MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {folder}"

    @property
    def default_place(self) -> str:
        """The address that MLflow itself would take from its environment, otherwise a folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or "tracking/mlflow"

    def write(self, content: ExportContent, folder: Path, place: Path) -> None:
        """Writes a local store. Its artifacts are addressed where they will be, in `place`."""
        with _environment():
            client = _client(str(folder))
            experiment = client.create_experiment(content.title[:200], artifact_location=(place / "artifacts").as_uri())
            for run in content.runs:
                log = _Log(client, experiment, run, at=run.finished)
                log.add(run.scalars)
                for name, file in run.files.items():
                    target = folder / "artifacts" / log.id / "artifacts" / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
                log.close(run, attach=False)

    def check(self, place: str) -> None:
        """Asks the store for one experiment."""
        with _environment():
            _client(place).search_experiments(max_results=1)

    def track(self, place: str, title: str, run: ExportRun) -> Tracker:
        """Opens a run in the experiment of this title, which is created where it is missing."""
        with _environment():
            client = _client(place)
            experiment = client.get_experiment_by_name(title)
            number = client.create_experiment(title) if experiment is None else experiment.experiment_id
            return _Log(client, number, run)


class _Log:
    """One run of MLflow. `at` is the time that its metrics state, in seconds since 1970; None for now."""

    def __init__(self, client: Any, experiment: str, run: ExportRun, at: float | None = None) -> None:
        self._client, self._at = client, None if at is None else int(1000 * at)
        self.id: str = client.create_run(experiment, start_time=self._at, run_name=run.name).info.run_id
        self._log_parameters(run.parameters)

    def _log_parameters(self, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        keys = _keys(parameters)
        named = [Param(keys[name], value[:_MAX_TEXT]) for name, value in parameters.items()]
        for first in range(0, len(named), 100):
            self._client.log_batch(self.id, params=named[first : first + 100])

    def add(self, scalars: Iterable[Scalar]) -> None:
        from mlflow.entities import Metric

        at = int(1000 * time.time()) if self._at is None else self._at
        metrics = [Metric(scalar.name, scalar.value, at, scalar.step) for scalar in scalars]
        with _environment():
            for first in range(0, len(metrics), _BATCH):
                self._client.log_batch(self.id, metrics=metrics[first : first + _BATCH])

    def close(self, run: ExportRun | None, *, attach: bool = True) -> None:
        with _environment():
            if run is not None:
                self._log_parameters(run.parameters)
                for title, text in run.notes.items():
                    self._client.set_tag(self.id, f"fedmem.{title}", text[:_MAX_TEXT])
                for file in run.files.values() if attach else ():
                    self._client.log_artifact(self.id, str(file))
            status = "FAILED" if run is None else "FINISHED"
            self._client.set_terminated(self.id, status=status, end_time=self._at)


def _client(place: str) -> Any:
    """A client of the store at a folder or an address."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=place if "://" in place else Path(place).absolute().as_uri())


@contextmanager
def _environment() -> Iterator[None]:
    """MLflow's environment with the defaults of this module; it is as before when the block ends."""
    missing = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _keys(names: Iterable[str]) -> dict[str, str]:
    """Names that MLflow takes for these parameters; names that are equal after cleaning get a number."""
    keys: dict[str, str] = {}
    for name in names:
        key, number = clean_piece(name), 1
        while key in keys.values():
            number += 1
            key = f"{clean_piece(name)}-{number}"
        keys[name] = key
    return keys
