"""The folder of a finished run, comparison or sweep, from its path or from its id alone."""

from __future__ import annotations

import re
from pathlib import Path

MANIFEST = "manifest.json"
_ID = re.compile(r"[0-9a-f]{4,64}")


def finished_folder(text: str) -> Path:
    """The folder of this path, or of the run whose id is this text or begins with it.

    A run is looked for below the current folder and below `runs`, up to two folders deep. Where there is none, or more
    than one, the text is taken for a path. The message about it is then that of a wrong path.

    >>> finished_folder("runs/quickstart/0123456789ab")
    PosixPath('runs/quickstart/0123456789ab')
    """
    path = Path(text)
    if not _ID.fullmatch(text) or path.exists():
        return path
    depths = ("*", "*/*", "*/*/*")
    places = {manifest.parent for depth in depths for manifest in Path().glob(f"{depth}/{MANIFEST}")}
    runs = [place for place in places if place.name.startswith(text)]
    return runs[0] if len(runs) == 1 else path
