"""Attacks inside a bank use the processes that rest while models are looked at, and change no byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmem import processes
from fedmem.attacks import _problems
from fedmem.execution.run import run
from fedmem.processes import can_fork
from tests.tiny import tiny

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_fork(), reason="needs forks")]


def measured(workers: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes, list[int]]:
    """The measurements and reconstructions, and how many hands each attack had."""
    hands: list[int] = []

    def counted() -> int:
        hands.append(processes.num_processes())
        return hands[-1]

    monkeypatch.setattr(_problems, "num_processes", counted)
    attack: dict[str, Any] = {"kind": "inverting_gradients", "steps": 3}
    scenario = tiny(
        dataset={"kind": "digits"},
        model={"kind": "lenet", "channels": 2},
        runs=2,
        rounds=2,
        references=20,
        bootstrap=20,
        probes=[{"kind": "leakage", "attack": attack, "victims": 1, "max_images": 4, "levels": ["local"]}],
        speed={"executor": "one_by_one", "workers": workers, "shard": 2},
    )
    done = run(scenario, out=folder)
    return (
        (done / "measurements.parquet").read_bytes(),
        (done / "reconstructions.npz").read_bytes(),
        hands,
    )


def test_worker_count_follows_the_bank_and_changes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = measured(1, tmp_path / "one", monkeypatch)
    two = measured(2, tmp_path / "two", monkeypatch)
    assert set(one[2]) == {1}
    assert set(two[2]) == {2}
    assert one[:2] == two[:2]
    assert processes.num_processes() == 1, "they are given back"
