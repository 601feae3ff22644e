"""Fixtures of several files of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedmem.studies import figures
from fedmem.studies.compare import ComparedRuns, compare
from tests.studies.compare_helpers import SEEDS, VARY, small
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ComparedRuns:
    """Two strategies, two samplers, three seeds; strategies are compared within each sampler."""
    return compare(
        small(),
        vary=VARY,
        seeds=f"0:{SEEDS}",
        reference=["strategy.kind=fedavg"],
        out=tmp_path_factory.mktemp("made"),
        jobs=1,
    )


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, for who looks at none: they take longer than the runs."""
    monkeypatch.setattr(figures, "draw_all", lambda comparison: iter(()))
