"""Tests of `fedmem/reporting/cells.py`."""

from __future__ import annotations

import math

import numpy as np

from fedmem.reporting.cells import Value, number


def test_text_of_values() -> None:
    assert Value(value=1, low=0.5, high=math.inf, n=3).text(1) == "1.0 [0.5, ∞]"
    assert Value(value=-0.0001, low=-1, high=1, n=3).text(2) == "0.00 [−1.00, 1.00]"
    assert Value(value=0.1, low=0.0002, high=0.3, n=3).text(3) == "0.100 [0.0002, 0.300]"
    assert Value(value=-0.1, low=-0.3, high=-1e-9, n=3).text(3) == "−0.100 [−0.300, <0]"
    assert Value(value=0.1, low=1e-9, high=0.3, n=3).text(3) == "0.100 [>0, 0.300]"
    assert Value(value=0.1, low=0.0, high=0.3, n=3).text(3) == "0.100 [0.000, 0.300]"
    assert Value(value=1, low=math.nan, high=math.nan, n=1).text(2) == "1.00 [no interval]"
    assert not Value(value=1, low=math.nan, high=math.nan, n=1).is_significant
    assert not Value(value=1, low=0, high=2, n=1).is_significant
    assert Value(value=-1, low=-2, high=-0.1, n=1).is_significant
    assert number(-0.0, 1) == "0.0"


def _parse(text: str) -> float:
    """A printed number; of `>0` and `<0` the end that they are nearest to."""
    return 0.0 if text in (">0", "<0") else float(text.replace("−", "-").replace("∞", "inf"))


def test_printed_values_lie_within_their_printed_intervals() -> None:
    """Values near zero are the ones that rounding moves out of intervals whose ends have more digits."""
    rng = np.random.default_rng(0)
    for _ in range(3000):
        scale = 10.0 ** rng.integers(-7, 3)
        low, value, high = sorted((scale * rng.normal(size=3) + scale * rng.choice([-2, 0, 2])).tolist())
        for digits in (0, 1, 2, 3):
            text = Value(value=value, low=low, high=high, n=9).text(digits)
            shown, _, ends = text.removesuffix("]").partition(" [")
            first, last = map(_parse, ends.split(", "))
            assert first <= _parse(shown) <= last, (value, low, high, text)
