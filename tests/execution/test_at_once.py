"""Two equal commands at once: the second takes what the first has finished, and both end with the same tables."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fedmem.execution.many_scenarios import run_all
from fedmem.execution.run import run
from fedmem.execution.shard_lock import claim
from fedmem.execution.shard_store import place_of
from fedmem.results.folder import is_finished, writing
from fedmem.results.read import read
from tests.tiny import tiny

pytest.importorskip("fcntl")

ROOT = Path(__file__).resolve().parents[2]
SLOW_START: dict[str, Any] = {
    "runs": 2,
    "rounds": 12,
    "injections": [{"kind": "random_pattern", "per_client": 1}],
    "probes": [{"kind": "utility"}],
    "bootstrap": 20,
}


def at_once(folder: Path, *words: str) -> list[str]:
    """What two processes say that run the same command; both must end with exit code 0."""
    code = "from fedmem.cli.main import main; main()"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, *words], cwd=folder, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return [out for out, _ in said]


def test_two_equal_sweeps_at_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny(**SLOW_START).to_yaml())
    (tmp_path / "study.yaml").write_text("{base: tiny.yaml, axes: [{path: client.lr, values: [0.1, 0.3]}], seeds: 0:2}")
    one, other = at_once(tmp_path, "sweep", "study.yaml", "--jobs", "1", "--quiet")
    assert one == other
    folder = tmp_path / one.strip()
    assert len((folder / "results.csv").read_text().splitlines()) > 4
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_two_equal_comparisons_at_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny(**SLOW_START).to_yaml())
    words = ("compare", "tiny.yaml", "--vary", "client.lr=0.1,0.3", "--seeds", "0:2", "--jobs", "1")
    one, other = at_once(tmp_path, *words)
    assert one == other
    assert "TEST ACCURACY" in one


def test_what_another_process_runs_is_waited_for_and_taken(tmp_path: Path) -> None:
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


def test_a_folder_that_several_processes_replace_is_always_one_of_theirs(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fedmem.results.folder import writing\n"
        "for turn in range(40):\n"
        "    with writing(Path(sys.argv[1]), force=True) as partial:\n"
        "        for name in 'ab': (partial / name).write_text(sys.argv[2])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "kept"), who], env=env, stderr=subprocess.PIPE)
        for who in ("one", "other")
    ]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0)] * 2
    assert len({(tmp_path / "kept" / name).read_text() for name in "ab"}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
