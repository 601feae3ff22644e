"""Tests of `fedmem/contracts/selection.py`."""

from __future__ import annotations

import pytest

from fedmem.contracts.selection import Selection


@pytest.mark.parametrize(
    ("share", "count", "kept"),
    [(0.0, 10, 10), (0.25, 10, 8), (0.3, 10, 7), (0.29, 100, 71), (0.99, 10, 1), (0.99, 1, 1), (0.5, 0, 0)],
)
def test_the_share_is_rounded_down_and_one_row_stays(share: float, count: int, kept: int) -> None:
    """0.29 · 100 is 28.999… in floating point."""
    assert Selection(by="loss", share=share).kept(count) == kept
