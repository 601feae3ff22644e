"""Tests of `fedmem/execution/backends/processes.py`; what all backends do is in `test_contract.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedmem import processes
from fedmem.execution import executors
from fedmem.execution.backends import choice
from fedmem.execution.backends.processes import Processes
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.run import run
from fedmem.processes import cores
from fedmem.results.read import read
from tests.execution.backends.backend_helpers import Here, small, tables

TWO_SHARDS = {"shard": 4, "workers": 2}


@pytest.fixture
def without_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system like macOS, on which no process can be forked."""
    for module in (processes, choice, executors):
        monkeypatch.setattr(module, "can_fork", lambda: False)


def test_as_many_as_cores_and_one_for_a_gpu() -> None:
    backend = Processes()
    assert backend.num_workers(1, gpu=False) == cores()
    assert backend.num_workers(10_000, gpu=False) == backend.num_workers(1, gpu=True) == 1


@pytest.mark.slow
def test_shards_in_processes_give_the_same_bytes(tmp_path: Path) -> None:
    assert tables(run(small(), out=tmp_path / "there", on="processes")) == tables(run(small(), out=tmp_path / "here"))


@pytest.mark.slow
@pytest.mark.usefixtures("without_forks")
def test_without_forks_only_several_workers_are_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counted(Here):
        def pool(self, *args: object, workers: int, **how: object) -> object:
            asked.append(workers)
            return super().pool(*args, workers=workers, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("fedmem.execution.backends.processes.Processes", Counted)
    monkeypatch.chdir(tmp_path)
    run(small(rounds=2, runs=2, speed={"shard": 1, "workers": 2}), out=tmp_path / "two")
    assert asked == [2]
    run_all([small(rounds=2, runs=2, seed=seed) for seed in (1, 2)], out=tmp_path / "many", jobs=2)
    assert asked == [2, 2]
    run(small(rounds=2, runs=2, speed={"shard": 1, "workers": 1}), out=tmp_path / "one")
    run(small(rounds=2, runs=2, speed={"workers": 2}), out=tmp_path / "one shard")
    assert asked == [2, 2]


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.usefixtures("without_forks")
def test_without_forks_the_default_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = run(small(speed=TWO_SHARDS), out=tmp_path / "started")
    monkeypatch.undo()
    forked = run(small(speed=TWO_SHARDS), out=tmp_path / "forked")
    assert tables(started) == tables(forked)
    assert read(started).manifest["shards"] == read(forked).manifest["shards"]


CODE = """
import sys
from fedmem.execution.run import run
from tests.execution.backends.backend_helpers import small
run(small(rounds=2000), out=sys.argv[1], on="processes", listeners=[lambda event: print(event, flush=True)])
"""


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_when_the_command_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("round 1 of 2000"):
        assert process.poll() is None
    workers = _workers_of(process.pid)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 20
    while _workers_of(process.pid):
        assert time.monotonic() < until, "workers are left"
        time.sleep(0.1)


def _workers_of(group: int) -> list[int]:
    """The workers of loky in a group of processes."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text, state = (place / "cmdline").read_bytes(), (place / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if b"popen_loky" in text and int(state[2]) == group and state[0] != "Z":
            found.append(int(place.name))
    return found
