"""Differences at equal utility: lines that cross, no extrapolation, and intervals over simulated seeds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.studies.matched import (
    NOT_COMPLETE,
    NOT_REACHED,
    NOT_RISING,
    Curve,
    difference_at,
    overlap_of,
    seeds_by_rounds,
    values_at,
)

NOISE = np.array([-0.03, 0.01, 0.02])


def line(utility: list[float], slope: float, start: float = 0.0, noise: FloatArray = NOISE) -> Curve:
    """Seeds whose quantity is start + slope · utility, and noise that is constant along training."""
    points = np.tile(utility, (len(noise), 1))
    return Curve(utility=points, quantity=start + slope * points + noise[:, None])


def value(curve: Curve, reference: Curve, level: float) -> float:
    return difference_at(curve, reference, level).difference.value


def test_two_lines_differ_by_their_equation() -> None:
    steep, flat = line([0.1, 0.3, 0.7], 2.0), line([0.0, 0.5, 0.9], 1.0, 0.5, NOISE[::-1])
    for level in (0.2, 0.5, 0.65):
        assert value(steep, flat, level) == pytest.approx(level - 0.5, abs=1e-12)
        assert value(flat, steep, level) == pytest.approx(0.5 - level, abs=1e-12)


def test_a_faster_setting_on_the_same_line_has_no_difference() -> None:
    slow, fast = line([0.1, 0.3, 0.5, 0.6], 3.0), line([0.1, 0.8], 3.0, noise=NOISE[[1, 0, 2]])
    found = difference_at(slow, fast, 0.55).difference
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.low < 0 < found.high
    assert slow.quantity[0, -1] < fast.quantity[0, -1] - 0.5


def test_a_naive_match_in_each_seed_agrees_on_parallel_curves() -> None:
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 0.02, (5, 1))
    curve = Curve(utility=np.array([[0.1, 0.4, 0.8]]) + shifts, quantity=np.array([[0.0, 1.0, 1.4]]) + np.zeros((5, 1)))
    reference = line([0.0, 1.0], 0.0, noise=np.zeros(5))
    expected = [np.interp(0.6, u, q) for u, q in zip(curve.utility, curve.quantity, strict=True)]
    found = difference_at(curve, reference, 0.6).difference
    assert found.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert found.sd == pytest.approx(np.std(expected, ddof=1), abs=1e-12)


def test_seeds_that_learnt_more_are_no_scatter() -> None:
    utility = np.array([[0.1, 0.6]]) + np.array([[-0.05], [0.02], [0.03]])
    curve = Curve(utility=utility, quantity=3 * utility + NOISE[:, None])
    found = difference_at(curve, line([0.0, 1.0], 3.0, noise=np.zeros(3)), 0.4).difference
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.sd == pytest.approx(np.std(NOISE, ddof=1), abs=1e-12)


@pytest.mark.parametrize("level", [0.05, 0.75])
def test_nothing_is_extrapolated(level: float) -> None:
    low, high = line([0.0, 0.7], 1.0), line([0.1, 0.9], 1.0)
    found = difference_at(low, high, level)
    assert found.reason == NOT_REACHED
    assert math.isnan(found.difference.value)
    assert math.isnan(found.difference.p)


def test_curves_without_overlap_have_no_answer() -> None:
    low, high = line([0.1, 0.3], 1.0), line([0.5, 0.9], 1.0)
    assert overlap_of(low, high).share == 0
    assert math.isnan(overlap_of(low, high).low)
    assert {difference_at(low, high, level).reason for level in (0.2, 0.4, 0.7)} == {NOT_REACHED}


def test_overlap_is_a_share_of_the_whole_range() -> None:
    found = overlap_of(line([0.2, 0.6], 1.0), line([0.4, 1.2], 1.0))
    assert (found.low, found.high, found.share) == pytest.approx((0.4, 0.6, 0.2))
    same = line([0.5, 0.5], 1.0)
    assert overlap_of(same, same).share == 1


def test_the_ends_of_a_curve_are_reached() -> None:
    curve, reference = line([0.2, 0.6], 1.0), line([0.2, 0.6], 2.0, noise=NOISE[::-1])
    assert value(curve, reference, 0.2) == pytest.approx(-0.2, abs=1e-12)
    assert value(curve, reference, 0.6) == pytest.approx(-0.6, abs=1e-12)


def test_utility_counts_until_it_first_reaches_the_level() -> None:
    curve = Curve(
        utility=np.tile([0.0, 0.8, 0.2, 0.9], (3, 1)), quantity=np.tile([0.0, 0.8, 5.0, 9.0], (3, 1)) + NOISE[:, None]
    )
    assert value(curve, line([0.0, 1.0], 0.0, noise=np.zeros(3)), 0.4) == pytest.approx(0.4, abs=1e-12)


def test_a_plateau_has_no_answer() -> None:
    flat = np.array([[0.0, 0.5, 0.52], [0.0, 0.5, 0.48], [0.0, 0.5, 0.52]])
    curve = Curve(utility=flat, quantity=np.tile([0.0, 1.0, 3.0], (3, 1)) + NOISE[:, None])
    assert difference_at(curve, line([0.0, 1.0], 1.0), 0.505).reason == NOT_RISING
    assert difference_at(curve, line([0.0, 1.0], 1.0), 0.25).reason == ""


def test_a_diverged_seed_does_not_count() -> None:
    curve, reference = line([0.1, 0.7], 2.0), line([0.0, 0.9], 1.0, noise=NOISE[::-1])
    broken = reference.quantity.copy()
    broken[1, 0] = np.nan
    found = difference_at(curve, Curve(utility=reference.utility, quantity=broken), 0.5)
    assert found.difference.n == found.reaching == 2
    gone = Curve(utility=reference.utility, quantity=np.full_like(broken, np.inf))
    assert difference_at(curve, gone, 0.5).reason == NOT_COMPLETE
    assert overlap_of(curve, gone).share == 0


def test_one_seed_has_a_value_and_no_interval() -> None:
    one = np.zeros(1)
    found = difference_at(line([0.0, 1.0], 2.0, noise=one), line([0.0, 1.0], 1.0, noise=one), 0.5).difference
    assert found.value == pytest.approx(0.5)
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_seeds_that_reach_the_level_are_counted() -> None:
    utility = np.array([[0.1, 0.5], [0.1, 0.7], [0.1, 0.9]])
    curve = Curve(utility=utility, quantity=np.array([[0.0, 1.0]] * 3) + NOISE[:, None])
    assert difference_at(curve, line([0.0, 1.0], 1.0), 0.6).reaching == 2


def rejections(difference: float, *, rng: np.random.Generator, trials: int = 500) -> float:
    """How often the interval of two settings, one twice as fast, misses the difference 0; both have noisy utility."""
    times = np.array([1.0, 2.0, 4.0, 8.0])
    missed = 0
    for _ in range(trials):
        curves = []
        for speed, extra in ((1.0, 0.0), (2.0, difference)):
            of_seed = rng.normal(0, 0.03, (6, 1))
            learnt = 1 - np.exp(-speed * times / 5) + of_seed
            seen = learnt + rng.normal(0, 0.02, (6, 4))
            curves.append(Curve(utility=seen, quantity=2 * learnt + extra + rng.normal(0, 0.05, (6, 4))))
        found = difference_at(curves[1], curves[0], 0.5).difference
        missed += not found.low <= 0 <= found.high
    return missed / trials


def test_intervals_cover_no_difference_and_exclude_a_large_one() -> None:
    rng = np.random.default_rng(1)
    # three standard errors of 500 trials; the curves bend a little between their points
    assert rejections(0.0, rng=rng) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)
    assert rejections(0.3, rng=rng, trials=100) > 0.9


def test_values_of_seeds_are_undefined_where_one_is_missing() -> None:
    utility = np.array([[0.0, 1.0], [0.0, math.nan]])
    curve = Curve(utility=utility, quantity=np.array([[0.0, 2.0], [0.0, 4.0]]))
    values, reason = values_at(curve, 0.5)
    assert np.isnan(values).all()
    assert reason
    values, reason = values_at(curve.of_seeds(np.array([True, False])), 0.5)
    assert values == pytest.approx([1.0])
    assert not reason


def test_differences_are_those_of_the_values_of_both_settings() -> None:
    rng = np.random.default_rng(4)
    one, other = (
        Curve(utility=np.array([0.1, 0.5, 0.9]) + rng.normal(0, 0.01, (6, 3)), quantity=rng.normal(size=(6, 3)))
        for _ in range(2)
    )
    means = [values_at(curve, 0.6)[0].mean() for curve in (one, other)]
    assert difference_at(one, other, 0.6).difference.value == pytest.approx(means[0] - means[1])


def test_values_come_in_the_order_of_seeds_and_rounds() -> None:
    values = pd.DataFrame({"seed": [1, 0, 1, 0, 7], "round": [4, 2, 2, 4, 2], "value": [14.0, 2.0, 12.0, 4.0, 72.0]})
    np.testing.assert_array_equal(seeds_by_rounds(values, [1, 0], [2, 4]), [[12, 14], [2, 4]])
    np.testing.assert_array_equal(seeds_by_rounds(values, [3, 0], [4, 8]), [[np.nan, np.nan], [4, np.nan]])


def test_two_values_of_a_seed_and_round_are_refused() -> None:
    values = pd.DataFrame({"seed": [0, 0], "round": [2, 2], "value": [1.0, 2.0]})
    with pytest.raises(ValueError, match="duplicate"):
        seeds_by_rounds(values, [0], [2])
