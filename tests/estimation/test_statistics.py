from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from fedmem.estimation.statistics import (
    benjamini_hochberg,
    clopper_pearson,
    fisher_exact,
    jackknife,
    mean,
    means_by_coin,
    newcombe,
    rank_sum_exact,
    student,
    student_columns,
    student_mean,
    welch_columns,
    wilson,
)
from tests.banks import coins


def test_mean_leaves_nan_out() -> None:
    values = np.array([[1.0, np.nan, np.nan], [2.0, 4.0, np.nan]])
    np.testing.assert_array_equal(mean(values, axis=0), [1.5, 4.0, np.nan])


def test_means_by_coin_equal_a_loop() -> None:
    rng = np.random.default_rng(3)
    values, is_in = rng.normal(size=(6, 4)), coins(6, 4, rng)
    values[0, 0] = np.nan
    runs = rng.integers(4, size=(9, 6)).astype(float)
    inside, outside = means_by_coin(values, is_in, runs)
    for b in range(9):
        for j in range(4):
            for side, got in ((is_in, inside), (~is_in, outside)):
                chosen = side[:, j] & ~np.isnan(values[:, j])
                w = runs[b, chosen]
                expected = (w * values[chosen, j]).sum() / w.sum() if w.sum() else np.nan
                np.testing.assert_allclose(got[b, j], expected)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (1, 1), (3, 8), (50, 100)])
def test_proportion_intervals_agree_with_scipy(k: int, n: int) -> None:
    from scipy.stats import binomtest

    counted = binomtest(k, n)
    for theirs, ours in (
        (counted.proportion_ci(method="wilson"), wilson(k, n)),
        (counted.proportion_ci(method="exact"), clopper_pearson(k, n)),
    ):
        assert [float(x) for x in ours] == pytest.approx([theirs.low, theirs.high], abs=1e-12)


def test_proportion_intervals_without_trials_know_nothing() -> None:
    assert [float(x) for x in wilson(0, 0)] == [0.0, 1.0]
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    low, high = newcombe([0, 3], [0, 4], [2, 0], [4, 0])
    assert low.tolist() == [-1, -1]
    assert high.tolist() == [1, 1]


def test_newcombe_reproduces_the_table_of_the_paper() -> None:
    # Newcombe (1998), table II, method 10, rows a, c, e and h.
    low, high = newcombe([56, 9, 10, 10], [70, 10, 10, 10], [48, 3, 0, 0], [80, 10, 20, 10])
    np.testing.assert_allclose(low, [0.0524, 0.1705, 0.6791, 0.6075], atol=5e-5)
    np.testing.assert_allclose(high, [0.3339, 0.8090, 1.0, 1.0], atol=5e-5)


# Tests of coins


@pytest.mark.parametrize(("total", "chosen"), [(8, 4), (9, 3), (20, 10)])
def test_fisher_and_rank_sum_equal_scipy(total: int, chosen: int) -> None:
    table = fisher_exact(total, chosen)
    for k in range(total + 1):
        for x in range(max(0, k - total + chosen), min(k, chosen) + 1):
            counts = [[x, chosen - x], [k - x, total - chosen - k + x]]
            assert table[k, x] == pytest.approx(scipy.stats.fisher_exact(np.array(counts)).pvalue)
    rng = np.random.default_rng(0)
    tails = rank_sum_exact(total, chosen)
    for _ in range(20):
        values = rng.normal(size=total)
        found = scipy.stats.mannwhitneyu(values[:chosen], values[chosen:], method="exact")
        assert tails[int(found.statistic)] == pytest.approx(found.pvalue)


def test_rank_sums_of_many_runs_are_normal() -> None:
    exact, normal = rank_sum_exact(200, 100), rank_sum_exact(202, 101)
    away = 600
    assert normal[101 * 101 // 2 + away] == pytest.approx(exact[5000 + away], rel=0.05)
    assert exact.shape == (10_001,)


def test_benjamini_hochberg_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        p = np.round(rng.beta(0.5, 2, size=30), 2)
        p[rng.random(30) < 0.1] = np.nan
        known = np.sort(p[~np.isnan(p)])
        steps = [k for k in range(1, len(known) + 1) if known[k - 1] <= 0.2 * k / len(known)]
        expected = p <= known[steps[-1] - 1] if steps else np.zeros(30, bool)
        np.testing.assert_array_equal(benjamini_hochberg(p, 0.2), expected)
    assert not benjamini_hochberg(np.array([]), 0.05).any()
    assert not benjamini_hochberg(np.array([np.nan]), 0.05).any()


def test_student_is_welchs() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=9), 3 * rng.normal(size=4)
    gap, low, high = student(one, np.append(other, np.nan))
    parts = one.var(ddof=1) / 9, other.var(ddof=1) / 4
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 8 + parts[1] ** 2 / 3)  # Welch (1947) and Satterthwaite
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    between = one.mean() - other.mean()
    assert (gap, low, high) == pytest.approx((between, between - half, between + half), rel=1e-12)
    # Values that are all alike say nothing of how much they could vary; a zero width would say that all is known.
    for sides in ((np.ones(3), np.zeros(3)), (np.full(3, 0.1), np.full(3, 0.1))):
        gap, low, high = student(*sides)
        assert gap == sides[0][0] - sides[1][0]
        assert math.isnan(low)
        assert math.isnan(high)
    assert not math.isnan(student(np.ones(3), other)[1])
    alone = student(np.ones(1), other)
    assert math.isnan(alone[1])
    assert not math.isnan(alone[0])
    assert math.isnan(student(np.array([]), other)[0])


def test_jackknife_of_a_mean_is_students_and_nan_if_degenerate() -> None:
    values = np.random.default_rng(3).normal(size=7)
    without = np.array([np.delete(values, r).mean() for r in range(7)])
    found = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert jackknife(float(values.mean()), without) == pytest.approx((found.low, found.high))
    assert jackknife(float(values.mean()), without) != pytest.approx(tuple(np.quantile(without, [0.025, 0.975])))
    for nothing in (np.ones(8), 0.1 + np.array([0, 1e-17, -1e-17]), without[:1], np.append(without, np.nan)):
        assert np.isnan(jackknife(0.5, nothing)).all()


def test_student_interval_equals_scipy_and_nan_if_degenerate() -> None:
    values = np.random.default_rng(4).normal(size=9)
    found = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert student_mean(np.append(values, np.nan)) == pytest.approx((found.low, found.high))
    for nothing in (np.full(9, 0.1), values[:1], np.full(3, np.nan)):
        assert np.isnan(student_mean(nothing)).all()


def test_missing_values_are_in_no_mean_by_coin() -> None:
    values = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 7.0], [np.nan, 9.0], [8.0, np.nan]])
    is_in = np.array([[True, True], [True, True], [False, False], [False, False], [False, False]])
    inside, outside = means_by_coin(values, is_in, np.ones((1, 5)))
    assert inside.tolist() == [[2.0, 2.0]]
    assert outside.tolist() == [[6.5, 8.0]]


def test_middle_rank_sums_have_p_1_by_counting_and_normal_law() -> None:
    """All ways to choose the runs are at least as far out, so p is 1: by counting, and by the normal law as well."""
    for total, chosen in ((10, 5), (202, 101), (302, 151)):
        p, middle = rank_sum_exact(total, chosen), chosen * (total - chosen) // 2
        assert p[[middle, middle + 1]].tolist() == [1.0, 1.0]
        assert p[middle - 1] < 1
    # the next value is further out by one pair, in all but the ways that have one of the two in the middle
    counted, normal = rank_sum_exact(198, 99), rank_sum_exact(202, 101)
    assert 1 - normal[101 * 101 // 2 - 1] == pytest.approx(1 - counted[99 * 99 // 2 - 1], rel=0.05)


def test_student_takes_rounding_for_no_spread() -> None:
    first = np.array([0.1 + 0.2, 0.3, 0.3])
    gap, low, high = student(first, np.array([0.3, 0.3, 0.1 + 0.2]))
    assert abs(gap) < 1e-15
    assert math.isnan(low)
    assert math.isnan(high)


def test_intervals_of_columns_are_those_of_each_column() -> None:
    rng = np.random.default_rng(0)
    values, others = rng.normal(size=(6, 5)), rng.normal(size=(4, 5))
    values[2, 1] = values[1:, 2] = others[0, 3] = np.nan
    others[:, 4] = 0.1
    low, high = student_columns(values)
    gap_low, gap_high = welch_columns(values, others)
    for j in range(5):
        np.testing.assert_allclose((low[j], high[j]), student_mean(values[:, j]))
        expected = student(values[:, j], others[:, j])[1:] if j < 4 else (np.nan, np.nan)
        np.testing.assert_allclose((gap_low[j], gap_high[j]), expected)


def test_a_huge_value_of_one_side_leaves_the_mean_of_the_other() -> None:
    """Values of a run that nearly diverged are finite; measured from them, others would be rounded to nothing."""
    values = np.array([[1e20, 3.0], [0.001, 3.0], [0.003, np.nan], [1.0, 3.0]])
    is_in = np.array([[False, True], [True, False], [True, True], [False, True]])
    inside, outside = means_by_coin(values, is_in, np.ones((1, 4)))
    assert inside[0, 0] == pytest.approx(0.002)
    assert outside[0, 0] == pytest.approx(5e19)
    assert inside[0, 1] == outside[0, 1] == 3.0
    assert np.isnan(means_by_coin(np.full((2, 1), np.nan), is_in[:2, :1], np.ones((1, 2)))).all()
