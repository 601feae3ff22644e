"""Event files that TensorBoard shows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmem.contracts.export import ExportContent, ExportRun, Scalar, Tracker


class TensorBoard:
    """A folder of event files for each run; series as scalars, parameters and verdict as text.

    Each series has the round as its step. The ends of its interval are series of their own, with the endings `.low` and
    `.high`. An undefined or infinite number is left out, so that a curve has a gap there.
    """

    extra = "tensorboard"
    package = "tensorboard"
    has_tables = False
    open_with = "tensorboard --logdir {folder}"
    default_place = "tracking/tensorboard"

    def write(self, content: ExportContent, folder: Path, place: Path) -> None:
        """Writes a folder for each run."""
        for run in content.runs:
            log = _Log(folder / run.name, run.finished)
            log.add(run.scalars)
            log.close(run)

    def check(self, place: str) -> None:
        """Makes the folder, and imports what writes."""
        Path(place).mkdir(parents=True, exist_ok=True)
        with _import_torch():
            pass

    def track(self, place: str, title: str, run: ExportRun) -> Tracker:
        """Opens an event file in `PLACE/NAME/ID`; further files of a run lie beside it."""
        return _Log(Path(place) / run.name, None)


class _Log:
    """The event file of one run. `at` is the time that its events state; None for now."""

    def __init__(self, folder: Path, at: float | None) -> None:
        with _import_torch() as event_log:
            # points of an earlier attempt at the same run are no longer shown
            self._log = event_log(log_dir=str(folder), purge_step=0 if at is None else None)
        self._at = at

    def add(self, scalars: Iterable[Scalar]) -> None:
        for scalar in scalars:
            self._log.add_scalar(scalar.name, scalar.value, scalar.step, walltime=self._at, new_style=False)
        self._log.flush()

    def close(self, run: ExportRun | None) -> None:
        if run is not None:
            for title, text in {**run.notes, "parameters": _lines(run.parameters)}.items():
                self._log.add_text(title, _as_code(text), 0, walltime=self._at)
        self._log.close()


@contextmanager
def _import_torch() -> Iterator[Any]:
    """Yields the class of torch that writes event files, imported without the warnings of its own imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter
    yield SummaryWriter


def _lines(parameters: Any) -> str:
    return "\n".join(f"{name}: {value}" for name, value in parameters.items())


def _as_code(text: str) -> str:
    """Text that TensorBoard shows as it is: indented lines are code in Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())
