"""Fixtures of several files of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
