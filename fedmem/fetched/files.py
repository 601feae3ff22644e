"""Published data sets and models that are fetched once into a cache folder, and compared with their checksums.

The folder is `$FEDMEM_CACHE`, by default `~/.cache/fedmem`, with a folder for each of them. A file gets its name
there only after its checksum was compared, and is compared again whenever it is read; loading never needs a network.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from fedmem.errors import ComponentError
from fedmem.fetched.sources import Source, Unavailable

State = Literal["whole", "damaged", "missing"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set or model that somebody published: its files with their checksums, and its sources, best first.

    `files` maps the name of each file to its sha256. `convert` makes these files out of the files of the sources, where
    these are different. It must be deterministic, because the checksums are those of its results. A dataset component
    that has one as `published` can be fetched by its kind.
    """

    name: str
    licence: str
    files: Mapping[str, str]
    sources: tuple[Source, ...]
    convert: Callable[[Path], None] | None = None


def cache_folder() -> Path:
    """Where fetched data sets and models lie."""
    return Path(os.environ.get("FEDMEM_CACHE") or "~/.cache/fedmem").expanduser()


def state(item: Published) -> State:
    """Whether every file is there, and is what was published."""
    paths = [cache_folder() / item.name / file for file in item.files]
    if not all(path.is_file() for path in paths):
        return "missing"
    whole = all(_digest_of(path) == item.files[path.name] for path in paths)
    return "whole" if whole else "damaged"


def read_verified(item: Published, file: str) -> bytes:
    """The bytes of a fetched file, which are the published ones; `ComponentError` says which command mends it."""
    path = cache_folder() / item.name / file
    if not path.is_file():
        message = f"{item.name} is not fetched ({path} is missing); run: fedmem fetch {item.name}"
        raise ComponentError("dataset", message)
    content = path.read_bytes()
    digest = _sha256(content)
    if digest != item.files[file]:
        raise ComponentError(
            "dataset",
            f"{path} is damaged: its sha256 is {digest}, that of the published file is {item.files[file]}; "
            f"run: fedmem fetch {item.name} --force",
        )
    return content


def take(item: Published, source: Source, target: Path) -> None:
    """Bring the files of one source next to their place, compare them, and only then move them there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # On the same file system as the target, so that moving a file is one step that cannot be half done.
    with tempfile.TemporaryDirectory(prefix=f".{item.name}-", dir=target.parent) as name:
        folder = Path(name)
        source.download(folder)
        if item.convert is not None:
            try:
                item.convert(folder)
            except (OSError, ValueError) as error:
                raise Unavailable(f"what it brought cannot be read: {error}") from error
        for file, expected in item.files.items():
            brought = folder / file
            digest = _digest_of(brought) if brought.is_file() else "of no file"
            if digest != expected:
                raise Unavailable(f"its {file} is not the published one (sha256 {digest}, expected {expected})")
        target.mkdir(exist_ok=True)
        for file in item.files:
            os.replace(folder / file, target / file)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(file: Path) -> str:
    """The sha256 of a file, which is not in memory as a whole. A version of a file is read once in a process."""
    status = file.stat()
    return _digest(file, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=1000)
def _digest(file: Path, *_: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
