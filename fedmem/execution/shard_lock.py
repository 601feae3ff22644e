"""One process at a time trains the shards of a scenario."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedmem.errors import BusyError
from fedmem.execution.shard_store import Shards, place_of, stored_shards

PATIENCE_SECONDS = 2.0
"""How long to wait for a lock: forks of a process that was just killed may hold it a moment longer."""


_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""The errors of a file system without locks."""


@contextmanager
def claim(folder: Path, *, force: bool = False, patience: float | None = None) -> Iterator[Shards]:
    """Holds the shards of this run until the block ends; with `force` those that are there are removed first.

    Another process that holds them is waited for, `patience` seconds at most, by default `PATIENCE_SECONDS`.

    Guarantees:

    - one process at a time: the lock is the kernel's, so that a process that is killed releases it;
    - a block that ends without an error has used its shards: they are removed;
    - after an error they stay; where there are none, nothing stays.

    Errors: `BusyError` where another process holds them.
    """
    place = place_of(folder)
    new_folders = [parent for parent in (place.parent, *place.parent.parents) if not parent.exists()]
    lock = _lock(place, folder, PATIENCE_SECONDS if patience is None else patience)
    shards = Shards(place, lock)
    try:
        if force:
            shards.remove_all()
        yield shards
        shutil.rmtree(place, ignore_errors=True)
    except BaseException:
        if not stored_shards(place):
            shutil.rmtree(place, ignore_errors=True)
            for parent in new_folders:
                with suppress(OSError):  # not empty: somebody else writes there
                    parent.rmdir()
        raise
    finally:
        shards.let_go()


def wait_for(folder: Path) -> None:
    """Returns when no other process holds the shards of this run; does not take them."""
    try:
        import fcntl
    except ImportError:
        return
    while True:
        try:
            lock = os.open(place_of(folder) / "lock", os.O_RDWR)
        except OSError:
            return  # there is none
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            return  # no locks here
        finally:
            os.close(lock)


def _lock(place: Path, folder: Path, patience: float) -> int | None:
    """The lock of this place, which is made. Where the system has none, renaming alone keeps shards whole."""
    try:
        import fcntl
    except ImportError:
        place.mkdir(parents=True, exist_ok=True)
        return None
    end = time.monotonic() + patience
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # the process that held it is done and has just removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(place / "lock")):
                os.ftruncate(lock, 0)
                os.write(lock, f"{os.getpid()}@{socket.gethostname()}".encode())
                return lock
        except FileNotFoundError:
            pass
        except BlockingIOError:
            if time.monotonic() >= end:
                owner = os.read(lock, 300).decode(errors="replace") or "unknown"
                os.close(lock)
                raise BusyError(
                    f"{folder} is being computed by another process ({owner}); wait until that is done, or end it, "
                    "then run the same command again"
                ) from None
            time.sleep(0.05)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return lock
            raise
        os.close(lock)
