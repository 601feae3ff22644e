"""The runs of a sweep: its folder, what failed in it, and the frame that comes of it.

```text
<out>/<scenario name>/<id>/             the run of each setting and seed, as `fedmem run` writes it
<out>/<scenario name>/sweep-<name>/
  results           one row for each setting, seed and quantity, of the summary and of each round (.csv and .parquet)
  series            all of these numbers (.json and .npz), from which `fedmem report` draws table, figures and page
  runs.json         the setting and seed of every run that was ever asked for, by its id
  failed.json       the runs that failed, and why, until they are retried
  study.db, trials  of a search: Optuna's storage; one row for each trial (.csv and .parquet)
```
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fedmem.contracts.events import Event, Listener, ScenarioFailed, ScenarioFinished
from fedmem.execution.many_scenarios import Outcome, run_all
from fedmem.studies.comparison import Comparison
from fedmem.studies.grid import Cell, label_of
from fedmem.studies.reading import study_html
from fedmem.studies.stored import StoredStudy, read_study, write_study
from fedmem.studies.sweep_file import Sweep
from fedmem.studies.tables import put, results

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class SweptRuns:
    """A sweep that was made: its folder, its cells, and why some failed, by the id of their run.

    `failed_trials` says why trials of a search failed, by their number, also those whose setting was impossible.
    `left_out` are finished runs that the file asked for earlier and does not ask for now, by their id: their setting.
    """

    path: Path
    cells: tuple[Cell, ...]
    failed: Mapping[str, str]
    failed_trials: Mapping[int, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def results(self) -> pd.DataFrame:
        """One tidy frame: a row for each setting, seed and quantity, over all rounds and at each of them."""
        import pandas as pd

        return pd.read_parquet(self.path / "results.parquet")

    def _repr_html_(self) -> str:
        """The sweep in a notebook."""
        study = read_study(self.path)
        failures = [f"{key}: {why}" for key, why in self.failed.items()]
        return study_html(study.title, study.comparison, failures, self.path)

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial of a search: its objectives, whether it is on the front, and why it failed."""
        import pandas as pd

        return pd.read_parquet(self.path / "trials.parquet")


def folder_of(plan: Sweep, cell: Cell, out: Path | str) -> Path:
    """Where the results of a sweep go; made here. Errors: `FolderError` where nothing can be written."""
    from fedmem.results.folder import check_place

    folder = Path(out) / cell.scenario.name / f"sweep-{plan.name}"
    check_place(folder, force=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Failures:
    """Why runs failed, by their id, on disk as soon as it is known."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "failed.json"
        self.by_run = self._read_file()

    def _read_file(self) -> dict[str, str]:
        content = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        return {str(key): str(value) for key, value in content.items()}

    def note(self, key: str, error: str | None) -> None:
        """Note that a run has failed, or has not."""
        self.by_run = self._read_file()  # another process may have noted some
        before = dict(self.by_run)
        self.by_run.pop(key, None)
        if error is not None:
            self.by_run[key] = error
        if self.by_run != before:
            partial = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            partial.write_text(json.dumps(self.by_run, indent=2, sort_keys=True), encoding="utf-8")
            partial.replace(self._file)


@dataclass(frozen=True, kw_only=True)
class _FailureWriter:
    """A listener that notes which of these cells failed, and which did not."""

    cells: Sequence[Cell]
    failures: Failures

    def __call__(self, event: Event) -> None:
        if isinstance(event, ScenarioFailed):
            self.failures.note(self.cells[event.place].scenario.id, event.error)
        elif isinstance(event, ScenarioFinished):
            self.failures.note(self.cells[event.place].scenario.id, None)


def run_cells(
    cells: Sequence[Cell],
    failures: Failures,
    *,
    out: Path | str,
    jobs: int | None,
    force: bool,
    retry_failed: bool,
    listeners: Sequence[Listener],
    on: str | None,
) -> list[Outcome]:
    """Run those that did not fail before, or only those that did."""
    if not force or retry_failed:
        _check_unchanged(cells, out)
    failed_ids = set(failures.by_run)
    cells_to_run = [cell for cell in cells if (cell.scenario.id in failed_ids) == retry_failed]
    noting = _FailureWriter(cells=cells_to_run, failures=failures)
    how: dict[str, Any] = {"out": out, "force": force, "jobs": jobs, "listeners": [noting, *listeners], "on": on}
    return run_all([cell.scenario for cell in cells_to_run], **how)


def _check_unchanged(cells: Sequence[Cell], out: Path | str) -> None:
    """Refuses finished runs that will enter the frame although their code or files have changed: `FolderError`."""
    from fedmem.execution.run import folder_of as folder_of_run
    from fedmem.execution.run import serve_finished, with_required_noise
    from fedmem.results.folder import is_finished

    for cell in cells:
        folder = folder_of_run(cell.scenario, out)
        if is_finished(folder):
            serve_finished(with_required_noise(cell.scenario), folder)


def note_runs(folder: Path, cells: Sequence[Cell], out: Path | str) -> dict[str, str]:
    """Notes the runs of a sweep on disk; returns the settings of finished ones that are not asked for any more."""
    from fedmem.execution.run import folder_of as folder_of_run
    from fedmem.results.folder import is_finished

    file = folder / "runs.json"
    noted: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    folders = {folder_of_run(cell.scenario, out): label_of(cell.setting) for cell in cells}
    wanted = {run.name: label for run, label in folders.items()}
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(noted | wanted, indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    partial.replace(file)
    return {key: label for key, label in noted.items() if key not in wanted and is_finished(folder.parent / key)}


def make_comparison(cells: Sequence[Cell], out: Path | str, failed: Container[str] = ()) -> Comparison:
    """The finished runs of these cells side by side; each setting is its own reference.

    Cells whose id has `failed` are left out, also where results of an earlier run are still there.
    """
    from fedmem.execution.run import folder_of as folder_of_run
    from fedmem.results.folder import is_finished
    from fedmem.results.read import read

    settings = tuple(dict.fromkeys(cell.setting for cell in cells))
    seeds = tuple(dict.fromkeys(cell.seed for cell in cells))
    places = {setting: place for place, setting in enumerate(settings)}
    folders = {
        (places[cell.setting], seeds.index(cell.seed)): folder_of_run(cell.scenario, out)
        for cell in cells
        if cell.scenario.id not in failed
    }
    runs = {place: read(folder) for place, folder in folders.items() if is_finished(folder)}
    return Comparison.of(runs, settings, range(len(settings)), seeds)


def write_results(
    folder: Path, cells: Sequence[Cell], out: Path | str, failed: Mapping[str, str] = MappingProxyType({})
) -> Comparison:
    """The tidy frame of all finished runs but for those that `failed`."""
    comparison = make_comparison(cells, out, failed)
    put(folder, "results", list(results(comparison)))
    causes = tuple(
        f"{label_of(cell.setting)}, seed {cell.seed}: {failed[cell.scenario.id]}"
        for cell in cells
        if cell.scenario.id in failed
    )
    title = f"{cells[0].scenario.name if cells else ''} · {folder.name}"
    write_study(folder, StoredStudy(title=title, comparison=comparison, failures=causes, is_sweep=True))
    return comparison
