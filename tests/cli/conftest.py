"""Fixtures of several files of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.main_helpers import SMALL


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    return tmp_path
