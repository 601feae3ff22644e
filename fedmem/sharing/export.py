"""`fedmem export`: a finished run, comparison or sweep in the format of another tool."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedmem.contracts.export import ExportContent, Target
from fedmem.errors import FolderError, RunError
from fedmem.guards.guarding import NOT_OURS

MARK = "fedmem-export.json"
"""The file in each export that says what it is an export of; `--force` replaces no other folder."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An export that was made.

    Attributes:
        folder: Where it is.
        open_with: The command that shows it.
        left_out: How many numbers series leave out because they are undefined or infinite; 0 for tables.
    """

    folder: Path
    open_with: str
    left_out: int


def export(folder: Path | str, to: str, *, out: Path | str | None = None, force: bool = False) -> Exported:
    """Export a finished run, comparison or sweep. Trains nothing and leaves the folder as it is.

    Args:
        folder: The folder of the finished run, comparison or sweep.
        to: The target: a name that `fedmem export --help` lists.
        out: The folder to write; by default `exports/<target>/<scenario name>/<id>`.
        force: Replace an export that is there.

    The folder of the export appears when it is complete, never before.

    Errors: `ComponentError` for a wrong target, or one whose package is not installed. `FolderError` where `folder` is
    not finished, or `out` exists. `RunError` where a file is damaged, or the target fails.
    """
    from fedmem.results.folder import writing
    from fedmem.sharing.targets import require_package

    target = require_package(to)
    content = content_of(Path(folder))
    source = Path(folder).resolve()
    place = Path(out) if out is not None else Path("exports") / to / source.parent.name / source.name
    _check_place(place, force=force)
    with writing(place, force=force) as partial:
        _write(target, to, content, partial, place.absolute())
        mark = {"target": to, "of": content.id, "title": content.title}
        (partial / MARK).write_text(json.dumps(mark, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return Exported(
        folder=place,
        open_with=target.open_with.format(folder=place),
        left_out=0 if target.has_tables else content.left_out,
    )


def content_of(folder: Path) -> ExportContent:
    """The content of a finished run, comparison or sweep."""
    from fedmem.results.read import read
    from fedmem.sharing.run_content import run_content
    from fedmem.sharing.study_content import study_content
    from fedmem.studies.stored import is_study

    return study_content(folder) if is_study(folder) else run_content(read(folder))


def _check_place(place: Path, *, force: bool) -> None:
    """Refuses a folder that is there, and with `force` one that is no export. Errors: `FolderError`."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not (place / MARK).is_file():
        raise FolderError(f"{place} exists and is no export, so it is not replaced; choose another place with --out")
    if not force:
        raise FolderError(f"{place} exists already; replace it with --force, or choose another place with --out")


def _write(target: Target, name: str, content: ExportContent, partial: Path, place: Path) -> None:
    """Calls the target; an error of its library becomes one message."""
    try:
        target.write(content, partial, place)
    except (*NOT_OURS, OSError, RunError):
        raise
    except Exception as error:
        # a library of somebody else can fail in any way
        cause = " ".join(str(error).split())
        raise RunError(
            f"the export to {name} failed, and nothing was written: {type(error).__name__}: {cause}"
        ) from error
