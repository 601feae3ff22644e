"""Offline runs of Weights & Biases, which `wandb sync` uploads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmem.contracts.export import ExportContent, ExportRun
from fedmem.errors import RunError


class Wandb:
    """A run in offline mode for each run, or for each setting and seed of a study. Nothing is uploaded.

    The configuration has the parameters. Each series has its own step, the round, in the metric `round`. The ends of an
    interval are metrics of their own, with the endings `.low` and `.high`. An undefined or infinite number is left out.
    """

    extra = "wandb"
    package = "wandb"
    has_tables = False
    open_with = "wandb sync {folder}/wandb/offline-run-*"

    def write(self, content: ExportContent, folder: Path, place: Path) -> None:
        """Writes the offline runs into `wandb/`. Errors: `RunError` where the caller has a run of wandb open."""
        import wandb

        if wandb.run is not None:
            raise RunError("a run of wandb is open in this process; call wandb.finish() before the export")
        with _environment():
            try:
                for run in content.runs:
                    _write_run(content.title, run, folder)
            finally:
                wandb.teardown()  # its process has written all files when it has ended


def _write_run(title: str, run: ExportRun, folder: Path) -> None:
    import wandb

    settings = wandb.Settings(
        console="off", disable_git=True, disable_code=True, silent=True, x_disable_stats=True, x_disable_meta=True
    )
    log = wandb.init(
        project=title, name=run.name, dir=str(folder), mode="offline", config=dict(run.parameters), settings=settings
    )
    try:
        log.define_metric("round")
        log.define_metric("*", step_metric="round")
        by_round: dict[int, dict[str, float]] = {}
        for scalar in run.scalars:
            by_round.setdefault(scalar.step, {})[scalar.name] = scalar.value
        for round_number in sorted(by_round):
            log.log({"round": round_number, **by_round[round_number]})
        log.notes = run.notes.get("verdict", "")
    finally:
        log.finish()


@contextmanager
def _environment() -> Iterator[None]:
    """Nothing is sent: neither runs nor reports of errors. The environment is as before when the block ends."""
    values = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
