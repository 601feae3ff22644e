"""Tests of `fedmem/contracts/ragged.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.contracts.ragged import Ragged


@given(st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=8))
def test_parts_equal_the_lists_that_they_are_made_of(lists: list[list[int]]) -> None:
    parts = Ragged.of(lists)
    assert [part.tolist() for part in parts] == lists
    assert parts.sizes.tolist() == [len(one) for one in lists]
    assert [part.tolist() for part in parts.sort_parts()] == [sorted(one) for one in lists]
    assert Ragged.of(parts) is parts


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 3)), max_size=20))
def test_grouped_rows_are_those_of_each_owner_sorted(pairs: list[tuple[int, int]]) -> None:
    rows, owner = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    found = [part.tolist() for part in Ragged.group_by_owner(rows, owner, 4)]
    assert found == [sorted(row for row, k in pairs if k == client) for client in range(4)]


def test_parts_cannot_be_written_to() -> None:
    parts = Ragged.of([[1, 2], [3]])
    with pytest.raises(ValueError, match="read-only"):
        parts[0][0] = 9


def test_sizes_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(AssertionError, match="last part"):
        Ragged.split(np.arange(5), np.array([2, 2]))
