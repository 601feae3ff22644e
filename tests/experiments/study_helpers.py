"""A study in small, in the process of a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fedmem.studies.study import CellArguments, Study, write_study


def small_study(
    study: Study,
    folder: Path,
    settings: Sequence[str],
    *,
    seeds: Sequence[int] = (0,),
    chosen: Callable[..., bool] = lambda *cell: True,
) -> dict[str, bytes]:
    """The files of a study after two writings, which are the same.

    Args:
        study: What is run, the second time from the runs of the first.
        folder: Where its runs and files go.
        settings: What makes its scenarios small.
        seeds: Its seeds.
        chosen: Called with the arguments of a cell: whether it is run.
    """
    cells: list[CellArguments] = [cell for cell in study.cells(seeds) if chosen(*cell)]
    assert cells
    written = []
    for name in ("first", "again"):
        results = [study.work(*cell, out=folder / "runs", settings=settings) for cell in cells]
        write_study(study, folder / name, study.tables(results))
        written.append({path.name: path.read_bytes() for path in (folder / name).iterdir()})
    assert written[0] == written[1]
    return written[0]
