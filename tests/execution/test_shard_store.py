"""Shards on disk: whole or not at all, of this scenario and code alone, held by one process at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.cli.completion import runs as completed
from fedmem.contracts.evidence import Bank, Dropped, TrainedBank
from fedmem.errors import RunError
from fedmem.execution.shard_lock import claim
from fedmem.execution.shard_store import Shards, divide, kept_runs, place_of
from fedmem.reporting.run_list import finished_runs
from fedmem.results import folder as folder_of_results
from tests.execution.shard_store_helpers import FIRST, LOST, MADE, SECOND, interrupted, kept, leaving
from tests.execution.test_join_shards import same


def empty(bank: Bank) -> Bank:
    return replace(bank, evidence=(), references=(), participation=())


@given(runs=st.integers(1, 60), size=st.integers(1, 70), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_runs_are_divided_into_equal_shards_once_each(runs: int, size: int, cuts: list[int]) -> None:
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


def test_shards_survive_an_interrupt_and_are_not_listed(folder: Path, done: TrainedBank) -> None:
    interrupted(folder, done)
    assert kept_runs(folder) == 4
    assert finished_runs(folder.parent.parent) == []
    assert completed(f"{folder.parent}/") == []
    with claim(folder) as shards:
        found, refused = shards.open(MADE)
        assert (list(found), refused, shards.known_failures()) == ([FIRST, SECOND], [], LOST.known)
    assert kept_runs(folder) == 0


def test_store_without_shards_leaves_no_folder(folder: Path, tmp_path: Path) -> None:
    with leaving(folder) as shards:
        shards.open(MADE)
        shards.store_failures(LOST.known)
    assert list(tmp_path.iterdir()) == []


def test_force_ignores_stored_shards(folder: Path, done: TrainedBank) -> None:
    interrupted(folder, done)
    with claim(folder, force=True) as shards:
        assert shards.open(MADE) == ({}, [])
        assert shards.known_failures() == {}


def test_shards_of_other_versions_are_refused_by_difference(folder: Path, done: TrainedBank) -> None:
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


def test_shard_damaged_during_training_is_an_error_before_use(folder: Path, done: TrainedBank) -> None:
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


def test_overlapping_shards_are_refused_but_one(folder: Path, done: TrainedBank) -> None:
    interrupted(folder, done)
    with claim(folder) as shards:
        shards.open(MADE)
        shards.write(range(1, 4), done, LOST, params=False)
        found, refused = shards.open(MADE)
    assert list(found) == [FIRST, SECOND]
    assert refused == ["training runs 1 to 3 again: other shards hold the same runs"]


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '["a", "{}"]', "[]"])
def test_damaged_failure_file_counts_as_no_failures(folder: Path, done: TrainedBank, text: str) -> None:
    interrupted(folder, done)
    file = place_of(folder) / "lost.json"
    assert json.loads(file.read_text())
    file.write_text(text)
    with claim(folder) as shards:
        shards.open(MADE)
        assert shards.known_failures() == {}


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_process_killed_while_writing_leaves_a_complete_shard(folder: Path, done: TrainedBank) -> None:
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
