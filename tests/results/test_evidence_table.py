"""Tests of `fedmem/results/evidence_table.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedmem.contracts.evidence import Evidence
from fedmem.contracts.stored_evidence import StoredEvidence
from fedmem.errors import RunError
from fedmem.modalities.scores import losses_of_stored, round_margins
from fedmem.results.evidence_table import evidence_rows, read_evidence, with_losses, write_evidence
from tests.results.evidence_helpers import assert_same, block, rounded
from tests.results.read_helpers import bank


def blocks() -> list[Evidence]:
    part = np.array([2, 3, 5, 9])
    empty = block(models=0)
    return [
        block("audit"), block(), rounded(), block(rows=part), rounded(rows=part), empty, replace(empty, rows=part),
        rounded(models=0), block("population", models=5),
    ]  # fmt: skip


@pytest.mark.parametrize("in_memory", [0, 10**6])
def test_every_block_is_read_as_it_was(tmp_path: Path, in_memory: int) -> None:
    write_evidence(tmp_path, blocks())
    back = list(read_evidence(tmp_path / "evidence.parquet", in_memory))
    for one, two in zip(blocks(), back, strict=True):
        assert_same(one, two)
        assert isinstance(two, StoredEvidence) == (in_memory == 0 and two.set != "audit")
        assert two.size == two.loss.size
        assert not two.has_shares


def test_shares_of_texts_are_read_as_they_were(tmp_path: Path) -> None:
    text = block(correct=np.full((3, 4), 0.25))
    write_evidence(tmp_path, [text])
    for in_memory in (0, 10**6):
        [back] = read_evidence(tmp_path / "evidence.parquet", in_memory)
        assert back.has_shares
        assert_same(text, back)


def test_losses_of_rounded_margins_are_not_stored(tmp_path: Path) -> None:
    write_evidence(tmp_path, [block("audit"), rounded()])
    table = pq.read_table(tmp_path / "evidence.parquet")
    assert table.column("loss").null_count == rounded().size
    whole = with_losses(table)
    assert whole.column("loss").null_count == 0
    found = whole.column("loss").to_numpy()
    np.testing.assert_array_equal(found[:12], block("audit").loss.ravel())
    np.testing.assert_array_equal(found[12:], rounded().loss.ravel())
    assert with_losses(whole) is whole


def test_rounded_margins_take_a_third_of_the_room(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 5, (20, 2000))
    run = np.arange(20, dtype=np.int32)
    sizes = []
    for values in (margin, round_margins(margin)):
        write_evidence(
            tmp_path, [block(run=run, client=run, margin=values, loss=losses_of_stored(values), correct=values > 0)]
        )
        sizes.append((tmp_path / "evidence.parquet").stat().st_size)
    assert 0.25 < sizes[1] / sizes[0] < 0.32


def test_numbers_of_a_part_are_those_of_its_rows() -> None:
    table = evidence_rows(block(rows=np.array([2, 3, 5, 9])))
    assert table.column("subject").to_pylist() == [2, 3, 5, 9] * 3


def test_stored_values_are_read_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_evidence(tmp_path, [block(), block("population", models=7), block(models=2)])
    parts = list(read_evidence(tmp_path / "evidence.parquet", in_memory=0))
    read: list[tuple[list[int], list[str]]] = []
    original = pq.ParquetFile.read_row_groups

    def spy(self: Any, groups: list[int], columns: list[str]) -> Any:
        read.append((groups, columns))
        return original(self, groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spy)
    assert parts[1].margin.shape == (7, 4)
    assert parts[1].margin[0, 3] == 1e300, "what was read last is not read again"
    assert parts[2].correct.shape == (2, 4)
    assert read == [([1], ["margin"]), ([2], ["correct"])]


def test_a_damaged_file_is_found_before_it_is_used(tmp_path: Path) -> None:
    file = tmp_path / "evidence.parquet"
    write_evidence(tmp_path, [block(), block("population", models=400)])
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    file.write_bytes(content)
    with pytest.raises((OSError, ValueError)):
        list(read_evidence(file, in_memory=0))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    write_evidence(tmp_path, [block()])
    [part] = read_evidence(tmp_path / "evidence.parquet", in_memory=0)
    (tmp_path / "evidence.parquet").unlink()
    with pytest.raises(RunError, match=r"evidence\.parquet was changed while it was read.*read the run again"):
        _ = part.margin


def test_a_file_with_rows_of_no_block_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "evidence.parquet"
    write_evidence(tmp_path, [block()])
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 8), file)
    with pytest.raises(ValueError, match="8 rows, and its blocks have 12"):
        list(read_evidence(file))


def test_all_evidence_of_a_bank_is_read_as_it_was(tmp_path: Path) -> None:
    own = bank()
    write_evidence(tmp_path, own.evidence)
    for one, two in zip(own.evidence, read_evidence(tmp_path / "evidence.parquet", in_memory=0), strict=True):
        assert_same(one, two)
