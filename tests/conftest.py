"""Property tests draw the same examples every time, as everything else here does; no test cuts the power."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def unsynced() -> Iterator[None]:
    """Files are left to the system to write: waiting for the disk ten times a run is most of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
