"""Property tests draw the same examples every time, as everything else here does; no test cuts the power."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
gc.set_threshold(10_000)  # looking for cycles every 700 objects is a tenth of the time of small tests


@pytest.fixture(autouse=True, scope="session")
def unsynced() -> Iterator[None]:
    """Files are left to the system to write: waiting for the disk ten times a run is most of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests on a GPU need one: they are skipped without it, or fail where `FEDMEM_REQUIRE_GPU` is set."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        missing = pytest.fail if os.environ.get("FEDMEM_REQUIRE_GPU") else pytest.skip
        missing("torch finds no GPU (CUDA) here")


@pytest.fixture(autouse=True)
def unmoved() -> Iterator[None]:
    """No test leaves the process in another folder: messages name files as seen from the current one."""
    before = Path.cwd()
    yield
    after = Path.cwd()
    os.chdir(before)
    assert after == before, "the test changed the current folder; use monkeypatch.chdir"
