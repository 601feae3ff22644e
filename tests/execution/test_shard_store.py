"""Shards on disk: whole or not at all, of this scenario and code alone, held by one process at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.cli.completion import runs as completed
from fedmem.contracts.evidence import Bank, Dropped, TrainedBank
from fedmem.errors import FolderError, RunError
from fedmem.execution import shard_lock
from fedmem.execution.bank import gather
from fedmem.execution.shard_lock import claim
from fedmem.execution.shard_store import Shards, divide, kept_runs, place_of
from fedmem.federation.build import build
from fedmem.reporting.run_list import finished_runs
from fedmem.results import folder as folder_of_results
from tests.execution.test_join_shards import same
from tests.tiny import tiny

MADE = {"scenario": "abc", "version of torch": "2"}
FIRST, SECOND = range(2), range(2, 4)
LOST = Dropped(known={(1, 3): "ValueError: so (in run 7)"}, found={(2, 0): "KeyError: 'ß'"})
PROBES = [
    {"kind": "utility"},
    {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 2}, "victims": 1, "rounds": [2]},
]


@pytest.fixture(scope="module")
def done() -> TrainedBank:
    scenario = tiny(rounds=2, probes=PROBES, save={"params": True})
    return gather(scenario, build(scenario), runs=FIRST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny" / "abc"


def empty(bank: Bank) -> Bank:
    return replace(bank, evidence=(), references=(), participation=())


def kept(shards: Shards, done: TrainedBank, **changes: str) -> Shards:
    """The same shards, opened, with two of them written."""
    shards.open({**MADE, **changes})
    shards.write(FIRST, done, LOST, params=True)
    shards.write(SECOND, done, Dropped(known={}, found={}), params=False)
    return shards


@contextmanager
def leaving(folder: Path) -> Iterator[Shards]:
    """Holds them until somebody presses Ctrl-C at the end of the block."""
    with suppress(KeyboardInterrupt), claim(folder) as shards:
        yield shards
        raise KeyboardInterrupt


def interrupted(folder: Path, done: TrainedBank, **changes: str) -> None:
    """What a process that was interrupted leaves behind."""
    with leaving(folder) as shards:
        kept(shards, done, **changes).store_failures(LOST.known)


@given(runs=st.integers(1, 60), size=st.integers(1, 70), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_every_run_is_in_one_shard_and_new_shards_are_alike(runs: int, size: int, cuts: list[int]) -> None:
    ends = sorted({min(cut, runs) for cut in cuts})
    there = [range(a, b) for a, b in zip(ends[::2], ends[1::2], strict=False) if a < b]
    found = divide(runs, size, there)
    assert [run for shard in found for run in shard] == list(range(runs))
    assert set(there) <= set(found)
    assert all(0 < len(shard) <= size for shard in found if shard not in there)
    if not there:
        sizes = {len(shard) for shard in found}
        assert max(sizes) - min(sizes) <= 1
        assert len(found) == -(-runs // size)


def test_a_shard_comes_back_to_the_last_bit(folder: Path, done: TrainedBank) -> None:
    with claim(folder) as shards:
        kept(shards, done)
        found, refused = shards.open(MADE)
        assert (found, refused) == ({FIRST: LOST, SECOND: Dropped(known={}, found={})}, [])
        back = shards.read_shard(FIRST, empty(done.bank))
        same(back, done)
        assert len(back.params) == len(done.params) == 2
        assert (back.executor, back.server, back.seconds) == (done.executor, done.server, done.seconds)
        assert back.failures == {**LOST.known, **LOST.found}
        assert back.bank.audit is done.bank.audit
        assert shards.read_shard(SECOND, empty(done.bank)).params == ()
    assert not place_of(folder).exists(), "they have been used"


def test_shards_outlive_an_interrupted_process_and_are_hidden_from_those_who_look_for_runs(
    folder: Path, done: TrainedBank
) -> None:
    interrupted(folder, done)
    assert kept_runs(folder) == 4
    assert finished_runs(folder.parent.parent) == []
    assert completed(f"{folder.parent}/") == []
    with claim(folder) as shards:
        found, refused = shards.open(MADE)
        assert (list(found), refused, shards.known_failures()) == ([FIRST, SECOND], [], LOST.known)
    assert kept_runs(folder) == 0


def test_nothing_is_left_where_nothing_was_kept(folder: Path, tmp_path: Path) -> None:
    with leaving(folder) as shards:
        shards.open(MADE)
        shards.store_failures(LOST.known)
    assert list(tmp_path.iterdir()) == []


def test_force_starts_anew(folder: Path, done: TrainedBank) -> None:
    interrupted(folder, done)
    with claim(folder, force=True) as shards:
        assert shards.open(MADE) == ({}, [])
        assert shards.known_failures() == {}


def test_shards_of_anything_else_are_not_used_and_it_is_said_what_differs(folder: Path, done: TrainedBank) -> None:
    interrupted(folder, done, **{"version of torch": "1", "data": "x"})
    with claim(folder) as shards:
        found, refused = shards.open(MADE)
        assert found == {}
        why = "those that are kept were made with another data, another version of torch"
        assert refused == [f"training runs 0 to 1 again: {why}", f"training runs 2 to 3 again: {why}"]
        assert shards.known_failures() == {}, "what failed there need not fail here"
        assert kept_runs(folder) == 0


FILES = (
    "measurements.parquet", "evidence.parquet", "references.parquet", "participation.parquet", "reconstructions.npz",
    "params.safetensors", "shard.json",
)  # fmt: skip


@pytest.mark.parametrize("how", ["flipped", "shorter", "empty", "gone"])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_shard_is_found_out_wherever_it_is_damaged(
    folder: Path, done: TrainedBank, file: str, how: str
) -> None:
    interrupted(folder, done)
    path = place_of(folder) / "runs-0-1" / file
    data = path.read_bytes()
    rng = np.random.default_rng(FILES.index(file))
    for place in [0, len(data) - 1, *rng.integers(len(data), size=10).tolist()] if how == "flipped" else [0]:
        flipped = bytes([*data[:place], data[place] ^ (1 << rng.integers(8)), *data[place + 1 :]])
        path.write_bytes({"flipped": flipped, "shorter": data[:-1], "empty": b"", "gone": b""}[how])
        if how == "gone":
            path.unlink()
        with leaving(folder) as shards:
            before = shutil.copytree(shards.place, folder.parent / "copy")
            found, (refused,) = shards.open(MADE)
            assert list(found) == [SECOND], f"byte {place}"
            assert refused.startswith("training runs 0 to 1 again: ")
            assert how == "gone" or "damaged" in refused or file == "shard.json"
            shutil.rmtree(shards.place)
            before.rename(shards.place)


def test_a_shard_that_is_damaged_while_others_are_trained_is_told_before_it_is_used(
    folder: Path, done: TrainedBank
) -> None:
    def damage() -> None:
        with claim(folder) as shards:
            kept(shards, done)
            (shards.place / "runs-0-1" / "evidence.parquet").write_bytes(b"PAR1")
            shards.read_shard(FIRST, empty(done.bank))

    with pytest.raises(RunError, match=r"runs-0-1 was damaged .*evidence.parquet is damaged.*trains runs 0 to 1"):
        damage()


def test_a_shard_under_the_name_of_another_is_not_used(folder: Path, done: TrainedBank) -> None:
    interrupted(folder, done)
    shutil.rmtree(place_of(folder) / "runs-2-3")
    (place_of(folder) / "runs-0-1").rename(place_of(folder) / "runs-2-3")
    with claim(folder) as shards:
        found, refused = shards.open(MADE)
    assert found == {}
    assert refused == ["training runs 2 to 3 again: those that are kept are others"]


def test_of_shards_that_overlap_one_is_used(folder: Path, done: TrainedBank) -> None:
    interrupted(folder, done)
    with claim(folder) as shards:
        shards.open(MADE)
        shards.write(range(1, 4), done, LOST, params=False)
        found, refused = shards.open(MADE)
    assert list(found) == [FIRST, SECOND]
    assert refused == ["training runs 1 to 3 again: other shards hold the same runs"]


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '["a", "{}"]', "[]"])
def test_nobody_is_known_to_fail_where_that_file_is_damaged(folder: Path, done: TrainedBank, text: str) -> None:
    interrupted(folder, done)
    file = place_of(folder) / "lost.json"
    assert json.loads(file.read_text())
    file.write_text(text)
    with claim(folder) as shards:
        shards.open(MADE)
        assert shards.known_failures() == {}


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_process_that_is_killed_while_it_writes_leaves_the_old_shard_the_new_one_or_none(
    folder: Path, done: TrainedBank
) -> None:
    """Whichever step is the last one: what is there is whole."""
    interrupted(folder, done)
    new = Dropped(known={}, found={(2, 2): "new"})

    def write(steps: int) -> None:
        left = [steps]

        def counted(original: Callable[..., Any]) -> Callable[..., Any]:
            def step(*words: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return original(*words, **options)

            return step

        for owner, name in (
            (folder_of_results, "_sync"),
            (Path, "rename"),
            (Path, "mkdir"),
            (shutil, "rmtree"),
            (np, "savez"),
        ):
            setattr(owner, name, counted(getattr(owner, name)))  # of this fork alone
        shards = Shards(place_of(folder), None)
        shards.made_from = MADE
        shards.write(FIRST, done, new, params=True)

    outcomes = []
    for steps in range(40):
        process = multiprocessing.get_context("fork").Process(target=write, args=(steps,))
        process.start()
        process.join()
        with leaving(folder) as shards:
            found, refused = shards.open(MADE)
            assert (SECOND in found, refused) == (True, [])
            outcomes.append(found.get(FIRST))
            if FIRST in found:
                shards.read_shard(FIRST, empty(done.bank))
            shards.write(FIRST, done, LOST, params=True)
        if process.exitcode == 0:
            break
    assert outcomes[-1] == new
    assert {repr(outcome) for outcome in outcomes} == {repr(LOST), repr(new), "None"}
    assert len(outcomes) > 12


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


def test_one_process_at_a_time_and_whoever_is_killed_lets_go(
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


def test_whoever_waited_for_shards_that_were_used_up_begins_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
