"""Tests of `fedmem/estimation/crossings.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmem.estimation import crossings
from fedmem.estimation.crossings import crossing_span, first_at_half, rising


def test_rising_curve_is_the_best_of_many() -> None:
    rng = np.random.default_rng(0)
    curve = rng.normal(size=6)
    best = rising(curve)
    assert (np.diff(best) >= 0).all()
    others = np.sort(rng.normal(size=(5000, 6)), axis=1)
    assert np.square(others - curve).sum(1).min() >= np.square(best - curve).sum()


@pytest.mark.parametrize(
    ("curve", "position"),
    [
        ([0.0, 0.0, 0.8, 0.8], 2),  # a step
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2),  # a ramp: half of the end is reached, and equality counts
        ([0.7], 0),
        ([0.8, 0.6, 0.4], 0),  # it falls: there from the first point on
        ([0.0, 0.9, 0.0, 0.6, 0.6], 1),  # the dip after a high point is pooled with it
    ],
)
def test_half_of_the_final_value_is_reached(curve: list[float], position: int) -> None:
    assert first_at_half(np.array(curve)) == position


def test_another_threshold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossings, "_HALF", 0.7)
    with pytest.raises(AssertionError):
        test_half_of_the_final_value_is_reached([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2)


def test_span_ends_at_the_last_point_that_may_be_first() -> None:
    below, unclear, above = (-2.0, -1.0), (-1.0, 1.0), (1.0, 2.0)
    assert crossing_span([below, below, above, above]) == (2, 2)
    assert crossing_span([below, unclear, unclear, above]) == (1, 3)
    assert crossing_span([above, above]) == (0, 0)
    assert crossing_span([below, unclear]) == (1, 2), "it may lie after the end"
    assert crossing_span([below, above, below, above]) == (1, 3), "a fall is not hidden"
    unknown = (math.nan, math.nan)
    assert crossing_span([unknown, above]) == (0, 1)
    assert crossing_span([unknown, unknown]) is None
    assert crossing_span([]) is None


def test_span_contains_the_crossing_in_nineteen_of_twenty() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([-3.0, -1.0, -0.2, 0.4, 1.0, 3.0])
    hits = 0
    for _ in range(2000):
        middle = truth + np.cumsum(rng.normal(size=6)) / np.sqrt(np.arange(1, 7))  # each has the deviation 1
        span = crossing_span([(value - 1.96, value + 1.96) for value in middle.tolist()])
        assert span is not None
        hits += span[0] <= 3 <= span[1]
    assert hits / 2000 >= 0.945
