"""Tests of `fedmem/reporting/cells.py`."""

from __future__ import annotations

import math

from fedmem.reporting.cells import Value, number


def test_text_of_values() -> None:
    assert Value(value=1, low=0.5, high=math.inf, n=3).text(1) == "1.0 [0.5, ∞]"
    assert Value(value=-0.0001, low=-1, high=1, n=3).text(2) == "0.00 [−1.00, 1.00]"
    assert Value(value=0.1, low=0.0002, high=0.3, n=3).text(3) == "0.100 [0.0002, 0.300]"
    assert Value(value=-0.1, low=-0.3, high=-1e-9, n=3).text(3) == "−0.100 [−0.300, <0]"
    assert Value(value=0.1, low=1e-9, high=0.3, n=3).text(3) == "0.100 [>0, 0.300]"
    assert Value(value=0.1, low=0.0, high=0.3, n=3).text(3) == "0.100 [0.000, 0.300]"
    assert Value(value=1, low=math.nan, high=math.nan, n=1).text(2) == "1.00 [no interval]"
    assert not Value(value=1, low=math.nan, high=math.nan, n=1).is_resolved
    assert not Value(value=1, low=0, high=2, n=1).is_resolved
    assert Value(value=-1, low=-2, high=-0.1, n=1).is_resolved
    assert number(-0.0, 1) == "0.0"
