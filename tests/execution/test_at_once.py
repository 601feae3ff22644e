"""Two equal commands at once: the second takes what the first has finished, and both end with the same tables."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedmem.execution.many_scenarios import run_all
from fedmem.execution.run import run
from fedmem.execution.shard_lock import claim
from fedmem.execution.shard_store import place_of
from fedmem.results.folder import is_finished, writing
from fedmem.results.read import read
from tests.forked import Forked, started
from tests.tiny import tiny

pytest.importorskip("fcntl")

SLOW_START: dict[str, Any] = {
    "runs": 2,
    "rounds": 12,
    "injections": [{"kind": "random_pattern", "per_client": 1}],
    "probes": [{"kind": "utility"}],
    "bootstrap": 20,
}


def at_once(folder: Path, *words: str) -> list[str]:
    """What two processes say that run the same command; both must end with exit code 0."""
    both = [started(*words, at=folder) for _ in range(2)]
    said = [process.wait() for process in both]
    assert [process.returncode for process in said] == [0, 0], said
    return [process.stdout for process in said]


def test_two_equal_sweeps_at_once_give_one_result(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny(**SLOW_START).to_yaml())
    (tmp_path / "study.yaml").write_text("{base: tiny.yaml, axes: [{path: client.lr, values: [0.1, 0.3]}], seeds: 0:2}")
    one, other = at_once(tmp_path, "sweep", "study.yaml", "--jobs", "1", "--quiet")
    assert one == other
    folder = tmp_path / one.strip()
    assert len((folder / "results.csv").read_text().splitlines()) > 4
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_two_equal_comparisons_at_once_give_one_result(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny(**SLOW_START).to_yaml())
    words = (
        "compare",
        "tiny.yaml",
        "--vary",
        "client.lr=0.1,0.3",
        "--seeds",
        "0:2",
        "--jobs",
        "1",
        "--measure",
        "test_accuracy",
        "--full",
    )
    one, other = at_once(tmp_path, *words)
    assert one == other
    assert "TEST ACCURACY" in one


def test_run_held_by_another_process_is_awaited_and_used(tmp_path: Path) -> None:
    """Of three scenarios the first is held by somebody else, who finishes it late."""
    scenarios = [tiny(**SLOW_START | {"rounds": 2}, seed=seed) for seed in range(3)]
    ready = run(scenarios[0], out=tmp_path / "elsewhere")
    folder = tmp_path / "runs" / "tiny" / scenarios[0].id
    outcomes: list[Any] = []
    with claim(folder):
        thread = threading.Thread(target=lambda: outcomes.extend(run_all(scenarios, out=tmp_path / "runs", jobs=1)))
        thread.start()
        end = time.monotonic() + 120
        while not all(is_finished(tmp_path / "runs" / "tiny" / one.id) for one in scenarios[1:]):
            assert time.monotonic() < end, "the others wait for the one that is held"
            time.sleep(0.05)
        assert not outcomes
        with writing(folder) as partial:
            for file in ready.iterdir():
                (partial / file.name).write_bytes(file.read_bytes())
        when = (folder / "manifest.json").stat().st_mtime_ns
    thread.join(timeout=60)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert (folder / "manifest.json").stat().st_mtime_ns == when
    assert read(folder).manifest["id"] == scenarios[0].id
    assert not place_of(folder).exists()


def test_folder_replaced_by_processes_is_always_one_of_theirs(tmp_path: Path) -> None:
    def replacing(who: str) -> None:
        for _ in range(40):
            with writing(tmp_path / "kept", force=True) as folder:
                for name in "ab":
                    (folder / name).write_text(who)

    both = [Forked(partial(replacing, who)) for who in ("one", "other")]
    ended = [process.wait() for process in both]
    assert [(process.stderr, process.returncode) for process in ended] == [("", 0)] * 2
    assert len({(tmp_path / "kept" / name).read_text() for name in "ab"}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
