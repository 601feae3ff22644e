"""The folder of a finished run, comparison or sweep, from its path, from its id alone, or from the name of runs."""

from __future__ import annotations

import re
from pathlib import Path

MANIFEST = "manifest.json"
_ID = re.compile(r"[0-9a-f]{4,64}")


def finished_folder(text: str) -> Path:
    """The folder of this path, of the run whose id is this text or begins with it, or of the newest run of this name.

    A run is looked for below the current folder and below `runs`, up to two folders deep. Where there is none, or where
    more than one id begins so, the text is taken for a path. The message about it is then that of a wrong path.

    >>> finished_folder("runs/quickstart/0123456789ab")
    PosixPath('runs/quickstart/0123456789ab')
    """
    path = Path(text)
    if _ID.fullmatch(text) and not path.exists():
        depths = ("*", "*/*", "*/*/*")
        places = {manifest.parent for depth in depths for manifest in Path().glob(f"{depth}/{MANIFEST}")}
        runs = [place for place in places if place.name.startswith(text)]
        if runs:
            return runs[0] if len(runs) == 1 else path
    return _newest_run(path) or _newest_run(Path("runs") / path) or path


def _newest_run(folder: Path) -> Path | None:
    """The run in this folder that finished last; None where the folder is a run or a study itself, or holds no run."""
    try:
        if not folder.is_dir() or any(entry.is_file() for entry in folder.iterdir()):
            return None
    except OSError:
        return None  # a path that the system does not take, or a folder that cannot be read
    manifests = [run / MANIFEST for run in folder.iterdir() if _ID.fullmatch(run.name) and (run / MANIFEST).is_file()]
    return max(manifests, key=lambda manifest: manifest.stat().st_mtime_ns).parent if manifests else None
