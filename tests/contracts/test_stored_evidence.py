"""Tests of `fedmem/contracts/stored_evidence.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.contracts.stored_evidence import StoredEvidence, join_evidence
from fedmem.results.evidence_table import read_evidence, write_evidence
from tests.results.evidence_helpers import assert_same, rounded


def test_joined_blocks_stay_in_their_files(tmp_path: Path) -> None:
    for name, models in (("a", 3), ("b", 5)):
        (tmp_path / name).mkdir()
        write_evidence(tmp_path / name, [rounded(models=models)])
    stored = [next(iter(read_evidence(tmp_path / name / "evidence.parquet", in_memory=0))) for name in ("a", "b")]
    joined = join_evidence(stored)
    assert isinstance(joined, StoredEvidence)
    assert_same(join_evidence([rounded(models=3), rounded(models=5)]), joined)
    mixed = join_evidence([rounded(models=3), stored[1]])
    assert isinstance(mixed, StoredEvidence)
    assert_same(joined, mixed)
