"""Tests of `fedmem/execution/remote_shards.py`: the side of a worker and that of who asks, in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.events import Event
from fedmem.errors import RunError
from fedmem.execution import remote_shards
from fedmem.execution.run import run
from fedmem.execution.shard_store import Shards
from fedmem.execution.sharding import made_with
from fedmem.federation.build import build
from tests.execution.backends.backend_helpers import Here, small, tables

CHANGES: list[dict[str, Any]] = [
    {},
    {"save": {"models": {"rounds": [-1]}, "params": True}},
    {"speed": {"memory": 0.9}},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_shards_of_workers_give_the_same_run(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = small(**changes)
    alone = run(scenario, out=tmp_path / "alone")
    monkeypatch.setattr("fedmem.execution.run.backend_for", lambda *_: Here())
    events: list[Event] = []
    folder = run(scenario, out=tmp_path / "remote", listeners=[events.append])
    assert tables(folder) == tables(alone)
    for file in (alone / "models").glob("*") if (alone / "models").is_dir() else ():
        assert (folder / "models" / file.name).read_bytes() == file.read_bytes()
    names = [type(event).__name__ for event in events]
    assert names.count("ShardStarted") == names.count("ShardStored") == 3
    assert not list(folder.parent.glob(".*"))


def test_a_phase_starts_from_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = small(then=[{"rounds": 2, "forget": {"kinds": ["typical"]}}])
    alone = run(scenario, out=tmp_path / "alone")
    monkeypatch.setattr("fedmem.execution.run.backend_for", lambda *_: Here())
    assert tables(run(scenario, out=tmp_path / "remote")) == tables(alone)


def test_a_machine_with_other_content_is_refused_by_name(tmp_path: Path) -> None:
    scenario = small()
    federation = build(scenario)
    shards = Shards(tmp_path, None)
    shards.made_from = {**made_with(scenario, federation), "version of numpy": "1.0", "processor": "x AVX2"}
    setup = remote_shards.setup_of(scenario, federation, shards, watch=True, pilot=None)
    with pytest.raises(RunError, match=r"the machine .* processor: .*; version of numpy: [\d.]+ there, 1\.0 here"):
        setup()
    assert callable(replace(setup, made_from=made_with(scenario, federation))())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    scenario = small()
    federation = build(scenario)
    shards = Shards(tmp_path, None)
    shards.made_from = made_with(scenario, federation)
    do = remote_shards.setup_of(scenario, federation, shards, watch=True, pilot=None)()
    done = do((range(2), {}), lambda event: None)
    for damaged in (done.files[:2000], done.files.replace(b"PAR1", b"PAR2"), b""):
        with pytest.raises(RunError, match="runs 0 to 1 arrived damaged"):
            shards.install(range(2), damaged)
        assert not list(tmp_path.iterdir())
    shards.install(range(2), done.files)
    assert [path.name for path in tmp_path.iterdir()] == ["runs-0-1"]
