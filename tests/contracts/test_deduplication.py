"""Tests of `fedmem/contracts/deduplication.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts import deduplication
from fedmem.contracts.deduplication import Duplicates
from fedmem.contracts.ragged import Ragged


def plain(features: list[list[int]], overlap: float, rows: list[int]) -> list[int]:
    """The definition: a row is kept unless its Jaccard index with a kept row before it reaches `overlap`."""
    kept: list[int] = []
    for row in rows:
        own = set(features[row])
        if all(len(own & set(features[k])) / len(own | set(features[k])) < overlap for k in kept):
            kept.append(row)
    return kept


@pytest.mark.parametrize("overlap", [0.2, 0.5, 1.0])
def test_near_duplicates_are_those_of_the_definition(overlap: float) -> None:
    rng = np.random.default_rng(0)
    features = [sorted(rng.choice(8, size=rng.integers(1, 6), replace=False).tolist()) for _ in range(30)]
    duplicates = Duplicates(features=Ragged.of(features), overlap=overlap)
    for _ in range(20):
        rows = rng.integers(30, size=rng.integers(0, 25))
        assert duplicates.keep_first(rows).tolist() == plain(features, overlap, rows.tolist())


def test_exact_duplicates_keep_the_first_in_the_own_order() -> None:
    numbers = [[0], [1], [0], [2], [1]]
    duplicates = Duplicates(features=Ragged.of(numbers), overlap=1.0)
    for rows in ([], [4, 1, 3], [2, 0, 3, 4, 1], [1, 1, 1]):
        assert duplicates.keep_first(np.array(rows, dtype=np.int64)).tolist() == plain(numbers, 1.0, rows)


def test_overlap_that_is_met_exactly_counts() -> None:
    features = Ragged.of([[0, 1, 2, 3], [2, 3, 4, 5]])  # 2 of 6
    rows = np.array([0, 1])
    assert Duplicates(features=features, overlap=1 / 3).keep_first(rows).tolist() == [0]
    assert Duplicates(features=features, overlap=0.34).keep_first(rows).tolist() == [0, 1]


def test_a_row_left_out_takes_no_other_with_it() -> None:
    """Row 1 is near 0 and near 2, but 0 and 2 are far apart: 1 is left out, and 2 stays."""
    features = Ragged.of([[0, 1, 2], [1, 2, 3], [2, 3, 4]])
    duplicates = Duplicates(features=features, overlap=0.5)
    assert duplicates.keep_first(np.array([0, 1, 2])).tolist() == [0, 2]
    assert duplicates.keep_first(np.array([1, 0, 2])).tolist() == [1]


def test_results_are_remembered_read_only_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplication, "MAX_RESULTS", 2)
    duplicates: Any = Duplicates(features=Ragged.of([[0], [0], [1]]), overlap=1.0)
    found = [duplicates.keep_first(np.array(rows)) for rows in ([0, 1], [1, 2], [2, 0])]
    assert [one.tolist() for one in found] == [[0], [1, 2], [2, 0]]
    assert len(duplicates._results) == 2
    assert duplicates.keep_first(np.array([2, 0])) is found[2]
    with pytest.raises(ValueError, match="read-only"):
        found[2][0] = 5
