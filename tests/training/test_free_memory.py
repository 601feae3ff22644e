"""Tests of `fedmem/training/free_memory.py`."""

from __future__ import annotations

import math
import os
import platform
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep less")
def test_freed_memory_is_given_back() -> None:
    """Small blocks between others that stay are kept by the C library, and those of a cycle by Python."""
    holder: list[object] = [bytearray(60_000) for _ in range(2_000)]
    kept = bytearray(60_000)
    holder.append(holder)
    full = _resident()
    del holder
    assert full - _resident() < 20e6, "nothing is given back before it is asked for"
    free_memory.give_back_memory()
    assert full - _resident() > 60e6
    assert len(kept) == 60_000


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
