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


@pytest.fixture(autouse=True)
def unmoved() -> Iterator[None]:
    """No test leaves the process in another folder: messages name files as seen from the current one."""
    before = Path.cwd()
    yield
    after = Path.cwd()
    os.chdir(before)
    assert after == before, "the test changed the current folder; use monkeypatch.chdir"
