"""Folders as bytes that can be sent to another machine."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def pack(folder: Path) -> bytes:
    """All files below a folder, as a tar archive without owners and times."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            info = tarfile.TarInfo(file.relative_to(folder).as_posix())
            info.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(info, content)
    return stream.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Put the files of an archive below a folder, which is made.

    Errors: `tarfile.TarError` for a name that would lead out of the folder, for links, and for what is no archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
        archive.extractall(folder, filter="data")
