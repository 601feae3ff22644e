"""Run folders: written whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedmem.errors import DiskError, FedmemError, FolderError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_finished(folder: Path) -> bool:
    """Whether this is the folder of a finished run."""
    return (folder / "manifest.json").is_file()


def reason_missing(folder: Path) -> str:
    """Why this is no finished run, and which one may be meant."""
    if not os.path.lexists(folder):
        return "there is no such folder; give the folder runs/<scenario>/<id>, which `fedmem run` prints"
    folders = [folder.parent] if folder.is_file() else [*folder.glob("*"), *folder.glob("*/*")]
    runs = [str(place) for place in sorted(folders) if is_finished(place)]
    meant = f", such as {runs[0]}" if runs else ""
    if folder.is_file():
        return f"it is a file; give the folder of the run{meant or ' runs/<scenario>/<id>'}"
    return f"it holds no manifest.json; give the folder runs/<scenario>/<id>{meant}"


def finish_time(folder: Path) -> int | None:
    """When this run was finished, in nanoseconds of the file system's clock; None where there is no finished run."""
    with suppress(OSError):
        return (folder / "manifest.json").stat().st_mtime_ns if is_finished(folder) else None
    return None


def check_place(folder: Path, *, force: bool = False) -> None:
    """Finds out before any work whether `folder` can be written; nothing is left behind, no folder is made.

    An empty folder in its place is fine, and so is any folder with `force`. Errors: `FolderError`.
    """
    if os.path.lexists(folder):
        # a folder that another process replaces is gone for a moment, and no link for that
        broken = folder.is_symlink() and not folder.exists()
        what = "a file" if folder.is_file() else "a link that leads nowhere" if broken else ""
        if what or (folder.is_symlink() and not is_finished(folder)):
            raise FolderError(
                f"{folder} is {what or 'a link'}, where the folder of the run should go; move it away, or choose "
                "another place with --out"
            )
        if not force and folder.is_dir() and any(folder.iterdir()):
            raise FolderError(
                f"{folder} exists already"
                + (
                    ", which means that this run is finished; --force runs it again"
                    if is_finished(folder)
                    else ", and holds a finished attack; replace it with --force, or choose another place with --out"
                    if (folder / "attack.json").is_file()
                    else ", but holds no finished run (no manifest.json); move it away, or replace it with --force"
                )
            )
    nearest = next(place for place in folder.absolute().parents if os.path.lexists(place))
    try:
        with tempfile.TemporaryDirectory(prefix=".fedmem-", dir=nearest) as place:
            probe = Path(place) / folder.absolute().relative_to(nearest)
            probe.mkdir(parents=True)
            (probe / "probe").write_bytes(b"fedmem")
    except OSError as error:
        raise FolderError(
            f"{nearest} cannot hold the results: {error.strerror or error}; choose another place with --out"
        ) from error


@contextmanager
def writing(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Yields a temporary folder next to `folder` and renames it to `folder` when the block ends without an error.

    Guarantees:

    - `folder` exists only when everything in it has reached the disk;
    - any exception, Ctrl-C included, removes the temporary folder and leaves no trace;
    - what a killed process left behind for this `folder` is removed at the next start;
    - with `force` the old folder stays in place until the new one is complete.

    Errors: `RunError` when `folder` exists and `force` is not given, `DiskError` when the disk is full or read-only.
    """
    try:
        check_place(folder, force=force)
    except FolderError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in (*_FULL, errno.EROFS):
            with explaining_disk(folder):
                raise error.__cause__ from None
        raise
    parent = folder.parent
    new_parents = [place for place in (parent, *parent.parents) if not place.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    mark = f"{os.getpid()}@{socket.gethostname()}"
    partial, replaced = parent / f".{folder.name}.partial-{mark}", parent / f".{folder.name}.replaced-{mark}"
    try:
        with explaining_disk(partial):
            partial.mkdir()
            yield partial
            for place in (*(path for path in sorted(partial.rglob("*")) if path.is_file()), partial):
                _sync(place)
            _put_in_place(partial, folder, replaced, force=force)
            _sync(parent)
    except BaseException:
        if os.path.lexists(replaced) and not os.path.lexists(folder):
            replaced.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
        for place in new_parents:
            with suppress(OSError):  # not empty: another process writes there
                place.rmdir()
        raise
    finally:
        if replaced.is_symlink():
            replaced.unlink()  # what it leads to is not ours
        else:
            shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Holds a lock on this file until the block ends; another process that holds it is waited for."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with file.open("w") as stream:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _put_in_place(partial: Path, folder: Path, replaced: Path, *, force: bool) -> None:
    """Renames `partial` to `folder`, and what was there to `replaced`, while other processes may do the same."""
    for _ in range(100):
        if force or not is_finished(folder):
            with suppress(FileNotFoundError):
                folder.rename(replaced)
        try:
            partial.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if not force:
            check_place(folder)
        shutil.rmtree(replaced, ignore_errors=True)  # another process was faster; its folder is replaced next
    raise RunError(f"{folder} is written by other processes all the time; end them, and run the same command again")


@contextmanager
def explaining_disk(place: Path, num_bytes: int = 0) -> Iterator[None]:
    """Turns the error of a disk that is full or read-only into a `DiskError` that says what to do.

    Args:
        place: What is written; it may be gone, or not yet there.
        num_bytes: How much that is, where it is known.
    """
    try:
        yield
    except FedmemError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL or "No space left" in str(error):
            raise _full_disk(place, num_bytes) from error
        if number == errno.EROFS or "Read-only file system" in str(error):
            raise DiskError(
                f"the disk that holds {place.parent} is read-only: nothing can be written there. What was finished is "
                "kept; mount it writable again, or choose another disk with --out, then run the same command again"
            ) from error
        raise


def _full_disk(place: Path, num_bytes: int) -> DiskError:
    """How much is missing."""
    written = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    existing = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    return DiskError(
        f"the disk that holds {place.parent} is full: the results need about "
        f"{max(num_bytes, written) / 1e6:.1f} MB and {(free + written) / 1e6:.1f} MB are there. Nothing was left "
        "behind; free some space or choose another disk with --out, then run the same command again"
    )


def put(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Removes what dead processes of this host left behind; puts a folder back that was about to be replaced."""
    for place in sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*@{socket.gethostname()}")):
        what, process = place.name.removeprefix(f".{folder.name}.").split("@")[0].split("-")
        if what not in ("partial", "replaced") or _is_alive(int(process)):
            continue
        if what == "replaced" and not folder.exists():
            place.rename(folder)
        else:
            shutil.rmtree(place)


def _is_alive(process: int) -> bool:
    """Whether another process with this number is running; where that cannot be asked, yes."""
    if os.name != "posix":
        return process != os.getpid()
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(place: Path) -> None:
    """Waits until a file or a folder has reached the disk."""
    if place.is_dir() and os.name != "posix":
        return
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
