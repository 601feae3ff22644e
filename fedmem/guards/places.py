"""Where the code of a part is, as messages say it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Defined(Protocol):
    """A part that is made from a class or function elsewhere, and says at which file and line."""

    _at: str


def shorten_path(file: str) -> str:
    """A file as seen from the current folder, where it lies below it."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):
        return file
