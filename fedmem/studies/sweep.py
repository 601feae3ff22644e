"""Run a sweep: every combination of its axes, or a search among them; nothing twice, failures noted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmem.contracts.events import Listener, count
from fedmem.execution.notebook import notebook_listeners
from fedmem.studies.feasibility import checked_cells
from fedmem.studies.grid import label_of
from fedmem.studies.sweep_file import load_sweep, places_of
from fedmem.studies.sweep_folder import Failures, SweptRuns, folder_of, note_runs, run_cells, write_results


def sweep(
    file: Path | str,
    *,
    out: Path | str = "runs",
    jobs: int | None = None,
    force: bool = False,
    retry_failed: bool = False,
    listeners: Sequence[Listener] = (),
    on: str | None = None,
) -> SweptRuns:
    """Run the missing runs of a sweep file, and put everything into one frame.

    Args:
        file: The sweep file.
        out: Where the results go.
        jobs: How many processes work; by default one for each core.
        force: Run again what is finished.
        retry_failed: Run those that failed before, and nothing else.
        listeners: Each is called with every event (`fedmem.contracts.events`) of every run. Without any, a notebook
            shows the progress.
        on: Where runs are trained, such as `ray:10.0.0.7:6379`; see `fedmem.run`.

    Guarantees:

    - every setting is checked with every seed before anything is trained. A search is checked at every value of each
      axis, and at both ends of a range;
    - a finished run is not repeated, whichever command made it. If a sweep is killed at any moment, the same call
      continues it;
    - a run that failed is noted at once, takes no other with it, and is not tried again unless asked for;
    - a search proposes the same settings however many processes work and however often it was interrupted.

    Errors: `ScenarioError` with all that is wrong in the file and in its settings, `FolderError`.
    """
    plan, base = load_sweep(file)
    listeners = listeners or notebook_listeners()
    how: dict[str, Any] = {"out": out, "jobs": jobs, "force": force, "listeners": listeners, "on": on}
    if plan.search is not None:
        from fedmem.studies.search import search

        with places_of(plan, file):
            return search(plan, base, retry_failed=retry_failed, **how)
    with places_of(plan, file):
        cells = checked_cells(base, plan.settings(), plan.all_seeds, plan.overrides, out=out, force=force)
    folder = folder_of(plan, cells[0], out)
    failures = Failures(folder)
    run_cells(cells, failures, retry_failed=retry_failed, **how)
    write_results(folder, cells, out, failures.by_run)
    ids = {cell.scenario.id for cell in cells}
    failed = {key: why for key, why in failures.by_run.items() if key in ids}
    return SweptRuns(path=folder, cells=cells, failed=failed, left_out=note_runs(folder, cells, out))


def left_out_text(swept: SweptRuns) -> str:
    """How many finished runs the file does not ask for any more, in words; empty for none."""
    if not swept.left_out:
        return ""
    settings = list(dict.fromkeys(swept.left_out.values()))
    more = f"; and {len(settings) - 5} more" if len(settings) > 5 else ""
    return (
        f"{count(len(swept.left_out), 'finished run')} of settings that the file no longer asks for: "
        f"{'; '.join(settings[:5])}{more}. The results leave them out. They come back, untrained, with their values in "
        "the file; a value counts as written"
    )


def failure_text(swept: SweptRuns) -> str:
    """The failures with their causes in words; empty without any."""
    cells = {cell.scenario.id: cell for cell in swept.cells}
    causes = [f"{label_of(cells[key].setting)}, seed {cells[key].seed}: {why}" for key, why in swept.failed.items()]
    parts = []
    if causes:
        lines = "".join(f"\n  {cause}" for cause in causes)
        parts.append(
            f"{len(causes)} of {len(cells)} runs failed; --retry-failed runs them again, and nothing else:{lines}"
        )
    if swept.failed_trials:
        lines = "".join(f"\n  trial {number}: {reason}" for number, reason in swept.failed_trials.items())
        parts.append(f"{count(len(swept.failed_trials), 'trial')} of the search failed (see trials.csv):{lines}")
    return "\n".join(parts)
