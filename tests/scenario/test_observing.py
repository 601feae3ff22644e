"""Tests of `fedmem/scenario/observing.py`."""

from __future__ import annotations

from fedmem.scenario.observing import Observe


def test_the_first_and_the_last_round_are_always_observed() -> None:
    assert Observe().observed_rounds_of(7) == (0, 7)
    assert Observe(every=3, rounds=(-2, 5)).observed_rounds_of(7) == (0, 3, 5, 6, 7)
