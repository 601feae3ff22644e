"""Tests of `fedmem/training/free_memory.py`."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from fedmem.training import free_memory


def test_limit_of_a_container_below_the_machines_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, unlimited = tmp_path / "limit", tmp_path / "max"
    limit.write_text("1000000\n")
    unlimited.write_text("max\n")
    for files, expected in (
        ((str(limit), str(unlimited)), 1e6),
        ((str(unlimited), str(tmp_path / "missing")), machine),
        ((), machine),
    ):
        monkeypatch.setattr(free_memory, "LIMITS", files)
        assert free_memory.memory_bytes() == expected


def test_memory_of_a_missing_gpu_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert free_memory.memory_bytes("cuda") == math.inf
