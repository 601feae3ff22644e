"""Tests of `fedmem/execution/shard_lock.py`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedmem.contracts.evidence import TrainedBank
from fedmem.errors import FolderError
from fedmem.execution import shard_lock
from fedmem.execution.shard_lock import claim
from fedmem.execution.shard_store import Shards, kept_runs, place_of
from tests.execution.shard_store_helpers import FIRST, MADE, SECOND, interrupted

HOLDING = """
import sys, time
from pathlib import Path
from fedmem.execution.shard_lock import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", HOLDING, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_admits_one_process_and_is_freed_by_a_kill(
    folder: Path, done: TrainedBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_lock, "PATIENCE_SECONDS", 0.1)
    interrupted(folder, done)
    with holding(folder) as other:
        try:
            computed = rf"abc is being computed by another process \({other.pid}@"
            with pytest.raises(FolderError, match=computed), claim(folder):
                pytest.fail("both hold it")
            assert kept_runs(folder) == 4
        finally:
            other.send_signal(signal.SIGKILL)
    with claim(folder) as shards:
        assert list(shards.open(MADE)[0]) == [FIRST, SECOND]


def test_process_that_waited_for_used_shards_starts_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a folder that is gone by then is worth nothing."""
    fcntl = pytest.importorskip("fcntl")
    flock = fcntl.flock
    asked: list[int] = []

    def late(lock: int, how: int) -> None:
        if not asked:
            shutil.rmtree(place_of(folder))
        asked.append(lock)
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with claim(folder) as shards:
        assert (shards.place / "lock").read_text().startswith(f"{os.getpid()}@")
    assert len(asked) == 2


def test_a_fork_does_not_keep_the_lock_of_its_parent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_lock, "PATIENCE_SECONDS", 0.1)
    with claim(folder) as shards:
        copy = Shards(shards.place, os.dup(shards._lock or 0))
        copy.let_go()
        copy.let_go()
        with pytest.raises(FolderError), claim(folder):
            pytest.fail("the parent holds it")
    with claim(folder):
        pass
