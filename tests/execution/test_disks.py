"""Disks that become full or read-only in the middle of a bank or of many scenarios: real file systems, made here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.contracts.events import Event, ScenarioFailed, ScenarioFinished, ShardStored
from fedmem.errors import DiskError, FolderError
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.run import run
from fedmem.execution.shard_store import place_of
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from tests.execution.backends.backend_helpers import small, tables

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, where this process may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def make_read_only(place: Path) -> None:
    """A read-only view over the disk, since a disk with files open for writing cannot be made read-only itself."""
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)


def make_writable(place: Path) -> None:
    """Take the view away."""
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> None:
    """Leave no byte."""
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


BREAK: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]] = {
    "read-only": (make_read_only, make_writable, "is read-only: .*--out"),
    "full": (fill, lambda place: (place / "filler").unlink(), r"is full: .* MB are there.*--out"),
}


def bank() -> Scenario:
    return small(rounds=2, runs=4, speed={"shard": 1, "workers": 1})


@pytest.mark.parametrize("what", BREAK)
def test_a_disk_that_breaks_costs_no_finished_shard(what: str, disk: Path, tmp_path: Path) -> None:
    spoil, mend, message = BREAK[what]
    stored: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, ShardStored):
            stored.append(event)
            if len(stored) == 2:
                spoil(disk)

    with pytest.raises(DiskError, match=message):
        run(bank(), out=disk, listeners=[listen])
    mend(disk)
    (place,) = (disk / "tiny").iterdir()
    assert sorted(path.name for path in place.iterdir()) == ["lock", "runs-0-0", "runs-1-1"], "nothing half-written"
    folder = run(bank(), out=disk)
    assert read(folder).manifest["shards"]["resumed"] == 2
    assert not place_of(folder).exists()
    assert tables(folder) == tables(run(bank(), out=tmp_path / "alone"))


@pytest.mark.parametrize("what", BREAK)
def test_a_disk_that_breaks_ends_many_scenarios_at_once(what: str, disk: Path, tmp_path: Path) -> None:
    """With one message, and none of them counts as failed."""
    spoil, mend, message = BREAK[what]
    scenarios = [small(rounds=2, runs=2, seed=seed, speed={"device": "cpu"}) for seed in range(3)]
    for number, scenario in enumerate(scenarios):  # of different kinds, so that they are trained one after the other
        scenarios[number] = scenario.model_copy(update={"name": f"part{number}"})
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, ScenarioFinished) and sum(isinstance(each, ScenarioFinished) for each in events) == 1:
            spoil(disk)

    with pytest.raises(DiskError, match=message):
        run_all(scenarios, out=disk, jobs=1, listeners=[listen])
    assert not any(isinstance(event, ScenarioFailed) for event in events)
    mend(disk)
    finished = len(list(disk.glob("*/[!.]*/manifest.json")))
    assert finished >= 1
    outcomes = run_all(scenarios, out=disk, jobs=1)
    assert sum(outcome.was_finished for outcome in outcomes) == finished
    alone = run_all(scenarios, out=tmp_path / "alone", jobs=1)
    assert [tables(outcome.folder) for outcome in outcomes] == [tables(outcome.folder) for outcome in alone]


def test_a_read_only_place_is_refused_before_any_work(disk: Path, tmp_path: Path) -> None:
    folder = run(bank(), out=disk)
    make_read_only(disk)
    assert run(bank(), out=disk) == folder, "what is finished is served"
    with pytest.raises(FolderError, match=r"cannot hold the results: Read-only file system; choose .*--out"):
        run(small(seed=8), out=disk)
    (tmp_path / "tiny.yaml").write_text(small(seed=8).to_yaml())
    done = CliRunner().invoke(app, ["run", str(tmp_path / "tiny.yaml"), "--out", str(disk)])
    assert done.exit_code == 2
    assert done.output.count("Read-only file system") == 1
    make_writable(disk)


def test_a_full_disk_in_a_command_says_what_is_kept(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(bank().to_yaml())
    (disk / "ballast").write_bytes(bytes(8 * 2**20 - 16_384))
    done = CliRunner().invoke(app, ["run", str(tmp_path / "tiny.yaml"), "--out", str(disk)])
    assert done.exit_code == 1
    assert done.output.count("is full") == 1
    assert "Traceback" not in done.output
