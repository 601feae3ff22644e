"""Fixtures of several files of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.studies.sweep_helpers import Write
from tests.tiny import tiny


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A sweep file beside its scenario."""
    base = tiny(
        runs=2,
        rounds=2,
        injections=[{"kind": "random_pattern", "per_client": 1}],
        probes=[{"kind": "utility"}],
        estimators=[{"kind": "exposure"}],
        bootstrap=20,
    )
    (tmp_path / "tiny.yaml").write_text(base.to_yaml())

    def made(name: str = "study.yaml", **content: Any) -> Path:
        (tmp_path / name).write_text(json.dumps({"base": "tiny.yaml", **content}))
        return tmp_path / name

    return made
