"""Copies of finished folders on other file systems, through fsspec: `push`, `pull`, and `read` of an address.

A copy has the files of the folder and `checksums.json`, which lists them with size and SHA-256. The list is written
last, so a copy without it is not finished. Nothing that is transferred is executed or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.errors import FedmemError, FolderError, RunError
from fedmem.guards.guarding import NOT_OURS
from fedmem.results.folder import is_finished, put, writing
from fedmem.results.urls import public_url, without_secrets

if TYPE_CHECKING:
    from fedmem.results.read import Run

LIST = "checksums.json"
"""The file of a copy that lists all others; a copy without it is not finished."""

_SCHEMA = 1
_MARKS = ("series.json", "manifest.json")
"""The files that make a folder a finished run or study; they are copied after all others."""
_MAX_LIST = 4_000_000
_MAX_FILES = 10_000
_CHUNK = 1 << 20
_PART = re.compile(r"[^/\\:\x00-\x1f\x7f]{1,255}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """The copied files of a transfer: the place, how many files, and their bytes. All checksums were verified."""

    place: str
    num_files: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A file of a copy: its path below the folder, its size in bytes, and its SHA-256."""

    name: str
    size: int
    sha256: str


def push(folder: Path | str, url: str, *, force: bool = False) -> Transferred:
    """Copy a finished run, comparison or sweep to another file system, and verify the copy.

    Args:
        folder: The folder.
        url: Where its files go, such as `s3://bucket/runs/quickstart/8b44b451ad95`, `memory://run` or a path.
        force: Replace a finished copy that is there.

    Guarantees:

    - each file is read again after it was written, and compared by size and SHA-256;
    - a transfer that is interrupted at any moment leaves no copy that `pull` or `read` takes for finished.

    Errors: `FolderError` where the folder is not finished, holds a link, or a copy is there. `RunError` where the file
    system fails or a checksum differs. Messages hold no user, password or key of the address.
    """
    source = Path(folder)
    if not any((source / mark).is_file() for mark in _MARKS):
        raise FolderError(f"{folder} is no finished run, comparison or sweep; give the folder that fedmem has printed")
    names = _names_below(source)
    with _explaining("push to", url):
        system, root = _open_system(url)
        if system.exists(_join(root, LIST)):
            if not force:
                raise FolderError(f"{public_url(url)} holds a finished copy; replace it with --force")
            system.rm_file(_join(root, LIST))
        for name in names:  # of a copy that is replaced
            if name in _MARKS and system.exists(_join(root, name)):
                system.rm_file(_join(root, name))
        entries = [_upload(system, source, root, name) for name in names]
        for entry in entries:
            with system.open(_join(root, entry.name), "rb") as stream:
                _verify(entry, stream, lambda data: None, public_url(url))
        with system.open(_join(root, LIST), "wb") as stream:
            stream.write(_list_bytes(entries))
    return _result(public_url(url), entries)


@contextmanager
def renewing_list(folder: Path) -> Iterator[None]:
    """Within, files of a copy may be drawn again: the entries of those that were written are renewed in its list.

    Entries of other files stay, so that damage to them is still found. Nothing is done in a folder without a list.
    """

    def stamps() -> dict[str, tuple[int, int]]:
        paths = {name: folder.joinpath(*name.split("/")) for name in _names_below(folder)}
        return {name: (path.stat().st_mtime_ns, path.stat().st_ino) for name, path in paths.items()}

    if not (folder / LIST).is_file():
        yield
        return
    before = stamps()
    try:
        yield
    finally:  # an alarm of a run ends the command after its page was written
        written = [name for name, stamp in stamps().items() if before.get(name) != stamp]
        entries = {entry.name: entry for entry in _entries_of((folder / LIST).read_bytes(), str(folder))}
        for name in written:
            data = folder.joinpath(*name.split("/")).read_bytes()
            entries[name] = _Entry(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        put(folder / LIST, _list_bytes(list(entries.values())))


def pull(url: str, folder: Path | str, *, force: bool = False) -> Transferred:
    """Copy what `push` has written to an address into a folder here, and verify it.

    Args:
        url: The address that was given to `push`.
        folder: The folder to write, such as `runs/quickstart/8b44b451ad95`. It appears when it is complete.
        force: Replace a finished run, comparison or sweep that is there.

    Only files of the list are copied, and only to paths inside the folder. Size and SHA-256 of each are compared.

    Errors: `FolderError` where there is no finished copy, or the folder exists. `RunError` where the list names a path
    outside the folder, a checksum differs, or the file system fails. Then nothing is written.
    """
    place = Path(folder)
    _check_target(place, force=force)
    with _explaining("pull from", url):
        system, root = _open_system(url)
        entries = _read_list(system, root, url)
    with writing(place, force=force) as partial, _explaining("pull from", url):
        for entry in entries:
            target = partial.joinpath(*entry.name.split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            with system.open(_join(root, entry.name), "rb") as stream, target.open("xb") as file:
                _verify(entry, stream, file.write, public_url(url))
    return _result(str(place), entries)


def read_remote(url: str) -> Run:
    """The finished run at an address, as `fedmem.read` returns it.

    Its files are copied to a temporary folder, which is removed when the run is no longer used.
    """
    from fedmem.results.read import read

    place = tempfile.mkdtemp(prefix="fedmem-")
    try:
        folder = Path(place) / (re.sub(r"[^\w.-]", "_", url.rstrip("/").rpartition("/")[2]).lstrip(".") or "run")
        pull(url, folder)
        if not is_finished(folder):
            raise FolderError(
                f"{public_url(url)} is a comparison or sweep; copy it with fedmem pull, then read the folder"
            )
        run = read(folder)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    weakref.finalize(run, shutil.rmtree, place, ignore_errors=True)
    return run


def _list_bytes(entries: Sequence[_Entry]) -> bytes:
    """The list of a copy as JSON."""
    files = [{"name": entry.name, "size": entry.size, "sha256": entry.sha256} for entry in entries]
    return (json.dumps({"schema": _SCHEMA, "files": files}, indent=1) + "\n").encode()


def _names_below(folder: Path) -> list[str]:
    """The files of a folder without hidden ones, those that mark it as finished last."""
    names = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or parts == (LIST,):
            continue
        if path.is_symlink():
            raise FolderError(f"{path} is a link, and a copy holds files alone; replace it by a file, or remove it")
        if path.is_file():
            names.append("/".join(parts))
    return sorted(names, key=lambda name: (_MARKS.index(name) if name in _MARKS else -1, name))


def _upload(system: Any, source: Path, root: str, name: str) -> _Entry:
    """Copies one file and returns what was read here."""
    digest, size, target = hashlib.sha256(), 0, _join(root, name)
    system.makedirs(target.rpartition("/")[0], exist_ok=True)
    with source.joinpath(*name.split("/")).open("rb") as file, system.open(target, "wb") as stream:
        while data := file.read(_CHUNK):
            digest.update(data)
            size += len(data)
            stream.write(data)
    return _Entry(name=name, size=size, sha256=digest.hexdigest())


def _verify(entry: _Entry, stream: Any, write: Callable[[bytes], object], where: str) -> None:
    """Reads a file, passes it on, and compares it with its entry; a file that is too long is not read to its end."""
    digest, size = hashlib.sha256(), 0
    while data := stream.read(min(_CHUNK, entry.size - size + 1)):
        digest.update(data)
        size += len(data)
        if size > entry.size:
            break
        write(data)
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise RunError(
            f"{entry.name!r} in {where} is damaged: its size or SHA-256 is not that of {LIST}; push the folder again"
        )


def _read_list(system: Any, root: str, url: str) -> Sequence[_Entry]:
    """The files of a finished copy. Errors: `FolderError` without a list, `RunError` where it is wrong or hostile."""
    try:
        with system.open(_join(root, LIST), "rb") as stream:
            data = stream.read(_MAX_LIST + 1)
    except FileNotFoundError:
        raise FolderError(
            f"{public_url(url)} holds no finished copy (no {LIST}): the address is wrong, or fedmem push was "
            "interrupted there; run it again"
        ) from None
    return _entries_of(data, url)


def _entries_of(data: bytes, url: str) -> Sequence[_Entry]:
    """The files of a list. Errors: `RunError` where it is wrong or hostile."""
    try:
        if len(data) > _MAX_LIST:
            raise ValueError("it is too long")
        content = json.loads(data)
        if content["schema"] != _SCHEMA:
            raise ValueError(f"it has schema {content['schema']!r}, and this version reads {_SCHEMA}")
        entries = [_entry_of(item) for item in content["files"]]
        _check_names([entry.name for entry in entries])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError | TypeError) else str(error)
        raise RunError(f"{LIST} in {public_url(url)} cannot be used: {reason:.300}; nothing was copied") from None
    return entries


def _entry_of(item: Mapping[str, Any]) -> _Entry:
    name, size, sha256 = item["name"], item["size"], item["sha256"]
    if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"the size or SHA-256 of {name!r} is wrong")
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is no name of a file")
    return _Entry(name=name, size=size, sha256=sha256)


def _check_names(names: Sequence[str]) -> None:
    """Errors: `ValueError` for a name that leads out of the folder, is hidden, or stands twice."""
    if len(names) > _MAX_FILES:
        raise ValueError(f"it lists {len(names)} files, and at most {_MAX_FILES} are copied")
    for name in names:
        parts = name.split("/")
        if len(name) > 1000 or not all(_PART.fullmatch(part) and not part.startswith(".") for part in parts):
            raise ValueError(f"{name!r} is no path inside the folder")
    if len({name.casefold() for name in names}) != len(names):
        raise ValueError("it lists a file twice")
    if not set(names) & set(_MARKS):
        raise ValueError(f"it lists neither {' nor '.join(_MARKS)}, so that it is no finished run or study")


def _check_target(place: Path, *, force: bool) -> None:
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not any((place / mark).is_file() for mark in _MARKS):
        raise FolderError(f"{place} exists and is no finished run or study, so it is not replaced; give another folder")
    if not force:
        raise FolderError(f"{place} exists already; replace it with --force, or give another folder")


def _open_system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path there. Errors: `FolderError` for an unknown or missing one."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise FolderError(
            "transfers need the package fsspec, which is not installed; install the extra remote: pip install fsspec, "
            "or in a checkout pip install '.[remote]'"
        ) from None
    try:
        system, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        reason = without_secrets(" ".join(str(error).split()), url)
        raise FolderError(f"{public_url(url)} cannot be opened: {reason}") from None
    return system, str(root).rstrip("/")


def _join(root: str, name: str) -> str:
    return f"{root}/{name}"


def _result(place: str, entries: Sequence[_Entry]) -> Transferred:
    return Transferred(place=place, num_files=len(entries), num_bytes=sum(entry.size for entry in entries))


@contextmanager
def _explaining(action: str, url: str) -> Iterator[None]:
    """Turns any error of a file system into a `RunError` without keys; its cause, which may hold some, is dropped."""
    try:
        yield
    except (*NOT_OURS, FedmemError):
        raise
    except Exception as error:
        reason = without_secrets(" ".join(str(error).split()), url)
        raise RunError(
            f"the {action} {public_url(url)} failed and is not finished: {type(error).__name__}: {reason}; run the "
            "same command again"
        ) from None
