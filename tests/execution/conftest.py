"""Fixtures of several files of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.contracts.evidence import TrainedBank
from fedmem.execution.bank import gather
from fedmem.federation.build import build
from tests.execution.shard_store_helpers import FIRST, PROBES
from tests.tiny import tiny


@pytest.fixture(scope="module")
def done() -> TrainedBank:
    scenario = tiny(rounds=2, probes=PROBES, save={"params": True})
    return gather(scenario, build(scenario), runs=FIRST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny" / "abc"
