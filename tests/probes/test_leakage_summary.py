"""Tests of `fedmem/probes/_leakage_summary.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmem.probes._clusters import mean_interval
from fedmem.probes.leakage import Leakage
from tests.labelling import labels
from tests.probes.leakage_helpers import QUICK, victim


def test_summaries_by_kind_round_and_final() -> None:
    rows = [
        victim(0, 2, 1.0), victim(0, 2, 3.0, owner=1), victim(1, 2, 5.0), victim(0, 4, 7.0),
        victim(0, 4, -1.0, kind="a, b"),
    ]  # fmt: skip
    found = {(m.round, m.reading.subject): m for m in Leakage(attack=QUICK).summarise(rows, 0)}
    assert found.keys() == {(2, "typical"), (4, "typical"), (None, "typical"), (4, "a, b"), (None, "a, b")}
    final = found[None, "typical"]
    assert (final.run, final.client, final.level, final.source) == (None, -1, "global", "leakage")
    assert final.reading.labels == labels("view=aggregate knows=lr")
    assert (final.reading.value, final.reading.n) == (4.0, 4)
    assert final.reading.low < 4.0 < final.reading.high
    assert (found[2, "typical"].reading.value, found[2, "typical"].reading.n) == (3.0, 3)
    alone = found[4, "typical"].reading
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


@pytest.mark.parametrize(
    ("metric", "values", "least", "most"),
    [("psnr", (2.0, 0.5), 0.0, 100.0), ("psnr", (100.0, 90.0), 0.0, 100.0), ("margin", (99.0, 20.0), -100.0, 100.0)],
)
def test_intervals_of_decibels_hold_nothing_impossible(
    metric: str, values: tuple[float, float], least: float, most: float
) -> None:
    """An image in [0, 1] is no further off than 0 dB and no nearer than the cap."""
    rows = [victim(i, 2, value, metric=metric, owner=i) for i, value in enumerate(values)]
    reading = Leakage(attack=QUICK).summarise(rows, 0)[0].reading
    low, high = mean_interval(np.array(values), range(2))
    assert low < least or high > most, "unbounded it would leave"
    assert (reading.low, reading.high) == (max(low, least), min(high, most))


def test_identification_rates_have_an_honest_interval_at_zero() -> None:
    rows = [victim(run, 2, 0.0, metric="identified") for run in range(4)]
    reading = Leakage(attack=QUICK).summarise(rows, 0)[0].reading
    assert (reading.value, reading.low) == (0.0, 0.0)
    assert reading.high > 0.4


def test_difference_and_interval_equal_hand_calculation() -> None:
    """Two holders: e = (1 - 3) / 2 - (0 - 1) / 2 and its opposite, so that half = t_1 sqrt(2 * 2 * 0.5^2)."""
    rows = [
        victim(0, 2, 1.0), victim(0, 2, 5.0, owner=1),
        victim(0, 2, 0.0, coin="out"), victim(0, 2, 2.0, owner=1, coin="out"),
    ]  # fmt: skip
    found = {(m.reading.metric, m.reading.labels): m.reading for m in Leakage(attack=QUICK).summarise(rows, 0)}
    about = labels("view=aggregate knows=lr")
    difference_of = about.plus(contrast="coins", minus="out")
    assert set(found) == {
        ("margin", about),
        ("margin", about.plus(coin="out")),
        ("margin.difference", difference_of),
    }
    assert found["margin", about].value == 3.0
    assert found["margin", about.plus(coin="out")].value == 1.0
    difference = found["margin.difference", difference_of]
    assert (difference.value, difference.n, difference.subject) == (2.0, 4, "typical")
    assert difference.high - 2.0 == pytest.approx(12.7062 * 1.0, rel=1e-4)
    assert 2.0 - difference.low == pytest.approx(12.7062 * 1.0, rel=1e-4)


def test_one_example_in_many_runs_and_rounds_is_one_cluster() -> None:
    """Four holders with an effect each, seen in 4 runs and 2 rounds: worth four values, not 32."""
    effects = (-3.0, -1.0, 1.0, 3.0)
    rows = [victim(r, t, effects[h], owner=h) for r in range(4) for t in (2, 4) for h in range(4)]
    (final,) = (m.reading for m in Leakage(attack=QUICK).summarise(rows, 0) if m.round is None)
    assert (final.low, final.high) == pytest.approx(mean_interval(np.array(effects), range(4)))
    # and an effect of the run, the same for all holders, is as little diluted by them
    rows = [victim(r, t, effects[r], owner=h) for r in range(4) for t in (2, 4) for h in range(4)]
    (final,) = (m.reading for m in Leakage(attack=QUICK).summarise(rows, 0) if m.round is None)
    assert (final.low, final.high) == pytest.approx(mean_interval(np.array(effects), range(4)))


def test_the_difference_of_rates_has_an_honest_interval_at_one() -> None:
    rows = [
        victim(run, 2, float(coin == "in"), metric="identified", owner=run, coin=coin)
        for run in range(4) for coin in ("in", "out")
    ]  # fmt: skip
    readings = {m.reading.metric: m.reading for m in Leakage(attack=QUICK).summarise(rows, 0)}
    difference = readings["identified.difference"]
    assert (difference.value, difference.high) == (1.0, 1.0)
    assert 0.1 < difference.low < 0.6


def test_empty_rows_have_an_empty_summary() -> None:
    assert Leakage(attack=QUICK).summarise([], 0) == []
