"""Tests of `fedmem/reporting/reconstruction_section.py`."""

from __future__ import annotations

import math

from fedmem.reporting.cells import Value
from fedmem.reporting.reconstruction_section import _sort_by_sign, _verdict


def value(low: float, high: float) -> Value:
    return Value(value=(low + high) / 2, low=low, high=high, n=9)


def test_kinds_are_listed_above_below_and_not_significant() -> None:
    values = {
        "a": value(0.1, 0.2),
        "b": value(-0.2, -0.1),
        "c": value(-0.1, 0.1),
        "d": value(1.0, 2.0),
        "e": value(math.nan, math.nan),
    }
    found = _sort_by_sign(values, "above for {}", "below for {}")
    assert found[:2] == ["above for a, d", "below for b"]
    assert found[2].endswith(" c, e")
    assert len(found) == 3
    assert _sort_by_sign({}, "above for {}", "below for {}") == []


def test_leakage_needs_a_gain_over_the_prior_or_identification() -> None:
    above, unclear = value(0.2, 0.5), value(-0.2, 0.5)
    assert _verdict({"a": above}, {"a": above}).startswith("leaks a (")
    assert _verdict({"a": above}, {"a": unclear}, ["a"]).startswith("leaks a (")
    assert _verdict({"a": above}, {"a": unclear}).startswith("closer than held-out examples, but neither identified")
    many = {kind: value(0.02, 0.5) for kind in "abcdef"}
    assert "leaks" not in _verdict(many, many), "intervals hold for all kinds at once"
