"""Paired differences, Holm, power and retention against other ways to the same numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.statistics import holm
from fedmem.studies.contrasts import (
    Contrast,
    bound_interval,
    contrast,
    detectable_difference,
    differences_of,
    find_dominating,
    is_above_zero,
    is_divisible,
    mean_of,
    retention_ratio,
    seeds_for,
    why_undefined,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(1.0, 1.0, 12), RNG.normal(0.5, 1.0, 12)


def test_a_contrast_is_the_paired_t_test() -> None:
    found = contrast(A, B)
    error = (A - B).std(ddof=1) / np.sqrt(12)
    half = stats.t.ppf(0.975, 11) * error
    between = (A - B).mean()
    assert found.p == pytest.approx(2 * stats.t.sf(between / error, 11), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((between - half, between + half), rel=1e-12)
    assert found.value == pytest.approx(A.mean() - B.mean())
    # in other words: paired, not of two samples, and with its sign
    assert found.p != pytest.approx(stats.ttest_ind(A, B).pvalue, rel=1e-3)
    assert contrast(B, A).value == -found.value


def test_effect_shared_by_all_seeds_does_not_widen_a_difference() -> None:
    shared = RNG.normal(0, 100, 12)
    one, other = contrast(A + shared, B + shared), contrast(A, B)
    assert (one.value, one.low, one.p) == pytest.approx((other.value, other.low, other.p))
    assert mean_of(A + shared).high - mean_of(A + shared).low > 10 * (one.high - one.low)


def test_seeds_that_lack_a_side_do_not_count() -> None:
    holes = A.copy()
    holes[3] = np.nan
    assert contrast(holes, B) == contrast(np.delete(A, 3), np.delete(B, 3))
    assert contrast(holes, B).n == 11


def test_contrast_with_too_few_or_equal_seeds_is_nan() -> None:
    for values, value in ((np.array([]), math.nan), (np.array([np.nan]), math.nan), (np.array([2.0]), 2.0)):
        found = contrast(values, np.zeros(len(values)))
        assert found.value == pytest.approx(value, nan_ok=True)
        assert math.isnan(found.p)
        assert math.isnan(found.low)
        assert not found.is_identical
    alike = contrast(np.array([0.3, 0.5, 0.9]) + 0.1, np.array([0.3, 0.5, 0.9]))  # but for rounding
    assert math.isnan(alike.p)
    assert math.isnan(alike.high)
    assert not alike.is_identical
    assert contrast(A, A).is_identical
    assert math.isnan(contrast(A, A).p)


TRUE = np.array([0.56, 0.52, 0.72, 1.0, 0.68])


def test_rounding_is_no_difference() -> None:
    """Equal numbers averaged in another way: 1.1e-16 lower in four seeds of five, p = .016 for nothing."""
    rounded = TRUE - 2.0**-53 * np.array([1, 1, 1, 0, 1])
    assert stats.ttest_1samp(rounded - TRUE, 0.0).pvalue == pytest.approx(0.016, abs=5e-4)
    for found in (contrast(rounded, TRUE), contrast(TRUE * (1 + 1e-15), TRUE)):  # here and there, and in all seeds
        assert found.is_identical
        assert math.isnan(found.p)
    assert differences_of(np.array([math.inf]), np.zeros(1)).tolist() == [math.inf]  # which is no rounding


def test_scatter_by_rounding_of_the_values_is_none() -> None:
    """Differences of 1e-7 are real here, and that they scatter by 1e-17 is of the values."""
    found = contrast(TRUE + 1e-7, TRUE)
    assert (TRUE + 1e-7 - TRUE).std(ddof=1) > 1e-12 * 1e-7
    assert found.value == pytest.approx(1e-7)
    assert np.isnan([found.low, found.high, found.p]).all()
    # while a scatter beyond rounding counts, as small as it may be
    assert contrast(TRUE + 1e-7 * TRUE, TRUE).p < 0.05


def test_intervals_hold_nothing_impossible() -> None:
    found = bound_interval(contrast(np.array([0.9, 0.1, 0.8]), np.zeros(3)), -1.0, 1.0)
    raw = contrast(np.array([0.9, 0.1, 0.8]), np.zeros(3))
    assert raw.high > 1
    assert (found.low, found.high, found.p, found.value) == (raw.low, 1.0, raw.p, raw.value)
    assert math.isnan(bound_interval(mean_of(np.array([0.5])), 0.0, 1.0).high)
    assert bound_interval(mean_of(A), -math.inf, math.inf) == mean_of(A)


def test_a_mean_has_students_interval() -> None:
    found = mean_of(A)
    half = stats.t.ppf(0.975, 11) * A.std(ddof=1) / math.sqrt(12)
    assert (found.value, found.low, found.high) == pytest.approx((A.mean(), A.mean() - half, A.mean() + half))


def test_holm_rejects_what_stepping_down_by_hand_rejects() -> None:
    def by_hand(p: list[float], level: float) -> list[bool]:
        rejected = [False] * len(p)
        for step, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
            if p[place] > level / (len(p) - step):
                break
            rejected[place] = True
        return rejected

    p = [0.001, 0.04, 0.012, 0.7, 0.013]
    for level in (0.01, 0.05, 0.2, 0.9):
        assert (holm(np.array(p)) <= level).tolist() == by_hand(p, level)
    assert (holm(np.array(p)) <= 0.05).sum() != (np.array(p) <= 0.05).sum()  # it adjusts at all
    assert (holm(np.array(p)) <= 0.06).sum() != (np.minimum(np.array(p) * 5, 1) <= 0.06).sum()  # more than Bonferroni


@given(st.lists(st.floats(0, 1), max_size=8))
@settings(max_examples=50, deadline=None)
def test_holm_keeps_order_and_ignores_nan(p: list[float]) -> None:
    adjusted = holm(np.array([*p, np.nan]))
    assert math.isnan(adjusted[-1])
    assert all(q >= r for q, r in zip(adjusted[:-1], p, strict=True))
    for (q, r), (s, t) in itertools.combinations(zip(adjusted, p, strict=False), 2):
        assert (q - s) * (r - t) >= 0


def test_detectable_difference_has_the_stated_power() -> None:
    """By simulation, at the level of one test and of Holm's first step among ten."""
    for tests in (1, 10):
        size = detectable_difference(2.0, 6, tests)
        draws = RNG.normal(size, 2.0, (20_000, 6))
        p: FloatArray = np.asarray(stats.ttest_1samp(draws, 0.0, axis=1).pvalue)
        assert np.mean(p < 0.05 / tests) == pytest.approx(0.8, abs=0.012)
    # two seeds and so many tests that only an absurd difference would be found, which is told all the same
    assert detectable_difference(1.0, 2, 5000) == pytest.approx(50 * detectable_difference(1.0, 2, 100), rel=1e-5)
    assert math.isnan(detectable_difference(math.nan, 6))
    assert math.isnan(detectable_difference(1.0, 1))
    assert math.isnan(detectable_difference(0.0, 6))


def test_seeds_needed_are_the_fewest_that_detect() -> None:
    for difference in (0.3, 1.0, 5.0):
        need = seeds_for(difference, 1.5, 4)
        assert detectable_difference(1.5, need, 4) <= difference
        assert need == 2 or detectable_difference(1.5, need - 1, 4) > difference
    assert seeds_for(-1.0, 1.0) == seeds_for(1.0, 1.0)
    assert seeds_for(1e-6, 1.0) == 0
    assert seeds_for(0.0, 1.0) == seeds_for(1.0, math.nan) == 0


LOCAL = RNG.normal(2.0, 0.5, 10)
WHOLE = 0.5 * LOCAL + RNG.normal(0, 0.1, 10)


def test_retention_is_a_ratio_of_sums_with_fiellers_interval() -> None:
    found = retention_ratio(WHOLE, LOCAL)
    assert found.value == pytest.approx(WHOLE.sum() / LOCAL.sum())
    # each end is a ratio that the t test of whole − ratio × local just does not reject
    for end in (found.low, found.high):
        assert stats.ttest_1samp(WHOLE - end * LOCAL, 0.0).pvalue == pytest.approx(0.05, rel=1e-6)
    assert found.low < found.value < found.high
    uneven = np.array([1.0, 8.0, 9.0, 8.0]), np.array([5.0, 10.0, 11.0, 10.0])
    assert retention_ratio(*uneven).value == pytest.approx(26 / 36)
    assert retention_ratio(*uneven).value != pytest.approx(
        (uneven[0] / uneven[1]).mean(), rel=0.02
    )  # no mean of ratios


def test_retention_of_what_is_not_there_has_no_value() -> None:
    for local in (LOCAL - LOCAL.mean(), -LOCAL, np.full(10, np.nan)):
        assert math.isnan(retention_ratio(WHOLE, local).value)
    assert math.isnan(retention_ratio(WHOLE[:1], LOCAL[:1]).value)
    holes = LOCAL.copy()
    holes[0] = np.nan
    assert retention_ratio(WHOLE, holes) == retention_ratio(WHOLE[1:], LOCAL[1:])


def test_seeds_with_more_examples_are_no_scatter_of_the_effect() -> None:
    local, whole, n = np.array([1.0, 1.02]), np.array([0.5, 0.52]), np.array([64.0, 48.0])
    found = retention_ratio(whole, local, n)
    assert found.value == pytest.approx((whole * n).sum() / (local * n).sum())
    # sums of such effects are not told from none, the effects are
    assert math.isnan(retention_ratio(whole * n, local * n).value)
    assert is_above_zero(local, n)
    assert not is_above_zero(local * n, np.ones(2))
    assert retention_ratio(WHOLE, LOCAL, np.full(10, 7.0)).high == pytest.approx(retention_ratio(WHOLE, LOCAL).high)
    # what is not there is not made by unequal counts either
    assert not is_above_zero(np.array([1.0, -1.0, 1.0]), np.array([64.0, 48.0, 64.0]))


def test_retention_of_equal_effects_is_nan() -> None:
    for effect in (0.3, 0.0, 1e-17):
        found = retention_ratio(WHOLE, np.full(10, effect), np.linspace(50, 64, 10))
        assert math.isnan(found.value)
        assert math.isnan(found.high)


def test_weighted_retention_covers_its_truth() -> None:
    hits = []
    for _ in range(400):
        n = RNG.integers(30, 90, 8).astype(float)
        local = RNG.normal(1.0, 0.5, 8)
        found = retention_ratio(0.5 * local + RNG.normal(0, 0.3, 8), local, n)
        if not math.isnan(found.value):
            hits.append(found.low <= 0.5 <= found.high)
    assert len(hits) > 300
    assert 0.9 < np.mean(hits) < 0.985


def test_retention_covers_its_truth() -> None:
    """Over seeds, 95 % of the time; a mean of ratios would be pulled away by small denominators."""
    hits = []
    for _ in range(400):
        local = RNG.normal(1.0, 0.8, 8)
        whole = 0.5 * local + RNG.normal(0, 0.3, 8)
        found = retention_ratio(whole, local)
        if not math.isnan(found.value):
            hits.append(found.low <= 0.5 <= found.high)
    assert len(hits) > 200
    assert np.mean(hits) > 0.92


def test_dominated_settings_name_the_setting_above_them() -> None:
    use, harm = np.array([0.9, 0.8, 0.95, 0.9, np.nan]), np.array([1.0, 2.0, 3.0, 1.0, 0.0])
    assert find_dominating(use, harm) == [-1, 0, -1, -1, -1]  # equals do not dominate each other, NaN nobody
    assert find_dominating(-use, harm)[2] != -1  # more use is better
    assert find_dominating(use, -harm)[0] == 2  # less harm is better


def test_contrast_with_an_interval_is_not_identical() -> None:
    found = Contrast(value=0.0, low=-1.0, high=1.0, p=1.0, sd=0.5, n=4)
    assert not found.is_identical


@pytest.mark.parametrize(
    ("effects", "reason"),
    [
        ([0.25, 0.25], "same in all seeds"),
        ([0.0, 0.0, math.nan], "is 0 in all seeds"),
        ([0.25, math.nan], "one seed has an effect"),
        ([math.nan, math.nan], "no seed has an effect"),
        ([1.0, -1.1, 0.3], "not significantly above 0"),
        ([1.0, 1.1, 0.9], ""),
    ],
)
def test_an_undefined_ratio_gives_its_own_reason(effects: list[float], reason: str) -> None:
    local, weights = np.array(effects), np.ones(len(effects))
    text = why_undefined(local, weights)
    assert reason in text
    assert bool(text) == math.isnan(retention_ratio(local / 2, local, weights).value)


def test_effects_hardly_above_zero_are_not_divided_by() -> None:
    """Fieller's interval of such a ratio is right and says little: its width is ten times its value."""
    local, whole, ones = np.array([1.0, 2.1, 1.4]), np.array([0.9, 1.0, 0.2]), np.ones(3)
    ratio = retention_ratio(whole, local, ones)
    assert is_above_zero(local, ones)
    assert ratio.high - ratio.low > 4
    assert "within a tenth of the effect" in why_undefined(local, ones)
    steady = np.array([1.0, 1.6, 1.3])
    assert not why_undefined(steady, ones)
    assert is_divisible(steady, ones)
