"""Tests of `fedmem/execution/backends/processes.py`; what all backends do is in `test_contract.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.execution.backends.processes import Processes
from fedmem.execution.run import run
from fedmem.processes import cores
from tests.execution.backends.backend_helpers import small, tables


def test_as_many_as_cores_and_one_for_a_gpu() -> None:
    backend = Processes()
    assert backend.num_workers(1, gpu=False) == cores()
    assert backend.num_workers(10_000, gpu=False) == backend.num_workers(1, gpu=True) == 1


@pytest.mark.slow
def test_shards_in_processes_give_the_same_bytes(tmp_path: Path) -> None:
    assert tables(run(small(), out=tmp_path / "there", on="processes")) == tables(run(small(), out=tmp_path / "here"))
