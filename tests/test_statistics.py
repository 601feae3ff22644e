from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from fedmem.statistics import (
    FEWEST,
    auc,
    benjamini_hochberg,
    clopper_pearson,
    cluster_interval,
    fisher_exact,
    interval,
    jackknife,
    mean,
    mean_over_examples,
    means_by_coin,
    newcombe,
    rank_sum_exact,
    resampling,
    smallest_fpr,
    student,
    tpr,
    weightings,
    wilson,
)
from tests.banks import coins, make_audit


def naive_auc(scores, is_in, weights):
    """Every pair of a member and a non-member that are different examples, one by one."""
    won = total = 0.0
    for i in np.argwhere(is_in & ~np.isnan(scores)):
        for o in np.argwhere(~is_in & ~np.isnan(scores)):
            if i[1] == o[1]:
                continue
            a, b, pair = scores[tuple(i)], scores[tuple(o)], weights[tuple(i)] * weights[tuple(o)]
            won += pair * ((a > b) + 0.5 * (a == b))
            total += pair
    return won / total if total else math.nan


def naive_tpr(scores, is_in, weights, fpr):
    """Every threshold, one by one."""
    ok = ~np.isnan(scores)
    all_in, all_out = weights[is_in & ok].sum(), weights[~is_in & ok].sum()
    if not all_in or not all_out:
        return math.nan
    best = 0.0
    for threshold in np.unique(scores[ok]):
        accepted = ok & (scores >= threshold)
        if weights[~is_in & accepted].sum() <= fpr * all_out * (1 + 1e-12):
            best = max(best, weights[is_in & accepted].sum() / all_in)
    return best


@given(seed=st.integers(0, 10**6), levels=st.sampled_from([2, 5, 1000]), fpr=st.sampled_from([0.0, 0.05, 0.25, 1.0]))
def test_auc_and_tpr_equal_the_naive_loops(seed, levels, fpr):
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(6, 5)).astype(float)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    is_in = rng.random(scores.shape) < 0.5
    runs, examples = rng.integers(3, size=(7, 6)).astype(float), rng.integers(3, size=(7, 5)).astype(float)
    products = runs[:, :, None] * examples[:, None, :]
    np.testing.assert_allclose(auc(scores, is_in, runs, examples), [naive_auc(scores, is_in, w) for w in products])
    np.testing.assert_allclose(
        tpr(scores, is_in, runs, examples, fpr), [naive_tpr(scores, is_in, w, fpr) for w in products]
    )


def test_auc_does_not_depend_on_how_weightings_are_cut_into_parts():
    rng = np.random.default_rng(0)
    scores, is_in = rng.normal(size=(8, 20)), rng.random((8, 20)) < 0.5
    runs, examples = rng.integers(3, size=(100, 8)).astype(float), rng.integers(3, size=(100, 20)).astype(float)
    whole = auc(scores, is_in, runs, examples)
    assert whole[77] == auc(scores, is_in, runs[77:78], examples[77:78])[0]


def test_auc_of_all_ties_is_a_half_and_tpr_is_nothing():
    scores, is_in = np.zeros((4, 3)), np.arange(12).reshape(4, 3) % 2 == 0
    one = np.ones((1, 4)), np.ones((1, 3))
    assert auc(scores, is_in, *one)[0] == 0.5
    assert tpr(scores, is_in, *one, 0.5)[0] == 0.0
    assert tpr(scores, is_in, *one, 1.0)[0] == 1.0


def test_auc_of_one_example_is_unknown():
    """An example against itself in another run is another question than member against non-member."""
    assert math.isnan(auc(np.array([[1.0], [0.0]]), np.array([[True], [False]]), np.ones((1, 2)), np.ones((1, 1)))[0])


def test_auc_of_a_hard_and_an_easy_example_is_not_drawn_to_one_by_pairs_with_themselves():
    """d = 1 within examples of very different difficulty: Phi(d / sqrt(2 (sd^2 + noise^2))) between examples."""
    rng, found, with_self = np.random.default_rng(3), [], []
    for _ in range(100):
        is_in = coins(32, 24, rng)
        scores = 10 * rng.normal(size=24) + 0.5 * rng.normal(size=(32, 24)) + is_in
        found.append(auc(scores, is_in, np.ones((1, 32)), np.ones((1, 24)))[0])
        with_self.append((scores[is_in][:, None] > scores[~is_in]).mean())
    truth = NormalDist().cdf(1 / math.sqrt(2 * (10**2 + 0.5**2)))
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - truth) < 3 * error
    assert np.mean(with_self) - truth > 5 * error


def test_a_few_clusters_or_equal_draws_make_no_interval():
    draws = np.random.default_rng(0).normal(size=200)
    assert cluster_interval(draws, FEWEST) == interval(draws)
    assert all(math.isnan(end) for end in cluster_interval(draws, FEWEST - 1))
    assert all(math.isnan(end) for end in cluster_interval(np.append(np.full(9, 0.25), np.nan), 40))
    assert all(math.isnan(end) for end in cluster_interval(np.empty(0), 40))


def test_auc_and_tpr_without_one_side_are_nan():
    scores, one = np.zeros((2, 2)), (np.ones((1, 2)), np.ones((1, 2)))
    for side in (True, False):
        is_in = np.full((2, 2), side)
        assert math.isnan(auc(scores, is_in, *one)[0])
        assert math.isnan(tpr(scores, is_in, *one, 0.1)[0])


def test_tpr_accepts_exactly_the_allowed_number_of_outs():
    scores = np.concatenate([np.arange(100.0), np.arange(100.0) + 0.5])[None]  # each member just above its out
    is_in = np.arange(200)[None] >= 100
    one = np.ones((1, 1)), np.ones((1, 200))
    # Ten outs may be accepted: those from 90 up; the members above out 89 are 89.5, 90.5, ..., 99.5.
    assert tpr(scores, is_in, *one, 10 / 100)[0] == 0.11
    assert tpr(scores, is_in, *one, 0.0)[0] == 0.01


def test_smallest_fpr_is_ten_outs():
    assert smallest_fpr(10) == 1.0
    assert smallest_fpr(1000) == 0.01
    assert math.isnan(smallest_fpr(9))
    assert math.isnan(smallest_fpr(0))


def test_resampling_draws_runs_and_examples_of_each_kind():
    audit = make_audit(["a"] * 5 + ["b"] * 3, [0] * 8, coins(6, 8, np.random.default_rng(0)))
    sample = resampling(audit, 40, np.random.default_rng(1))
    assert sample.runs.shape == (40, 6)
    assert sample.examples.shape == (40, 8)
    assert (sample.runs.sum(1) == 6).all()
    assert (sample.examples[:, :5].sum(1) == 5).all()
    assert (sample.examples[:, 5:].sum(1) == 3).all()
    assert len(np.unique(sample.runs, axis=0)) > 30
    runs, examples = weightings(sample)
    assert (runs[0] == 1).all()
    assert (examples[0] == 1).all()
    assert np.array_equal(runs[1:], sample.runs)


def test_resampling_of_one_run_draws_examples_only():
    audit = make_audit(["a"] * 5, [0] * 5, np.ones((1, 5), bool))
    sample = resampling(audit, 10, np.random.default_rng(1))
    assert (sample.runs == 1).all()
    assert sample.examples.std() > 0


def test_interval_counts_nan_out():
    values = np.concatenate([np.arange(1001.0), np.full(50, np.nan)])
    assert interval(values) == pytest.approx((25.0, 975.0))
    assert interval(values, level=0.5) == (250.0, 750.0)
    assert all(math.isnan(x) for x in interval(np.full(3, np.nan)))
    assert all(math.isnan(x) for x in interval(np.empty(0)))
    assert interval(np.array([1.5])) == (1.5, 1.5)


def test_mean_leaves_nan_out():
    values = np.array([[1.0, np.nan, np.nan], [2.0, 4.0, np.nan]])
    np.testing.assert_array_equal(mean(values, axis=0), [1.5, 4.0, np.nan])


def test_means_by_coin_equal_a_loop():
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


def test_mean_over_examples_leaves_nan_and_undrawn_out():
    values = np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, 5.0], [1.0, 3.0, 5.0]])
    weights = np.array([[1.0, 3.0, 9.0], [1.0, 1.0, 0.0], [0.0, 2.0, 2.0]])
    np.testing.assert_array_equal(mean_over_examples(values, weights), [1.75, np.nan, 4.0])


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (1, 1), (3, 8), (50, 100)])
def test_proportion_intervals_agree_with_scipy(k, n):
    from scipy.stats import binomtest

    for method, ours in (("wilson", wilson(k, n)), ("exact", clopper_pearson(k, n))):
        theirs = binomtest(k, n).proportion_ci(method=method)
        assert [float(x) for x in ours] == pytest.approx([theirs.low, theirs.high], abs=1e-12)


def test_proportion_intervals_without_trials_know_nothing():
    assert [float(x) for x in wilson(0, 0)] == [0.0, 1.0]
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    low, high = newcombe([0, 3], [0, 4], [2, 0], [4, 0])
    assert low.tolist() == [-1, -1]
    assert high.tolist() == [1, 1]


def test_newcombe_reproduces_the_table_of_the_paper():
    # Newcombe (1998), table II, method 10, rows a, c, e and h.
    low, high = newcombe([56, 9, 10, 10], [70, 10, 10, 10], [48, 3, 0, 0], [80, 10, 20, 10])
    np.testing.assert_allclose(low, [0.0524, 0.1705, 0.6791, 0.6075], atol=5e-5)
    np.testing.assert_allclose(high, [0.3339, 0.8090, 1.0, 1.0], atol=5e-5)


# Tests of coins


@pytest.mark.parametrize(("total", "chosen"), [(8, 4), (9, 3), (20, 10)])
def test_fisher_and_rank_sum_equal_scipy(total, chosen):
    table = fisher_exact(total, chosen)
    for k in range(total + 1):
        for x in range(max(0, k - total + chosen), min(k, chosen) + 1):
            counts = [[x, chosen - x], [k - x, total - chosen - k + x]]
            assert table[k, x] == pytest.approx(scipy.stats.fisher_exact(counts).pvalue)
    rng = np.random.default_rng(0)
    tails = rank_sum_exact(total, chosen)
    for _ in range(20):
        values = rng.normal(size=total)
        found = scipy.stats.mannwhitneyu(values[:chosen], values[chosen:], method="exact")
        assert tails[int(found.statistic)] == pytest.approx(found.pvalue)


def test_rank_sums_of_many_runs_are_normal():
    exact, normal = rank_sum_exact(200, 100), rank_sum_exact(202, 101)
    away = 600
    assert normal[101 * 101 // 2 + away] == pytest.approx(exact[5000 + away], rel=0.05)
    assert exact.shape == (10_001,)


def test_benjamini_hochberg_is_its_definition():
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


def test_student_is_welchs():
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=9), 3 * rng.normal(size=4)
    gap, low, high = student(one, np.append(other, np.nan))
    found = scipy.stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert (gap, low, high) == pytest.approx((one.mean() - other.mean(), found.low, found.high))
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


def test_jackknife_of_a_mean_is_students_and_has_nothing_to_say_of_nothing():
    values = np.random.default_rng(3).normal(size=7)
    without = np.array([np.delete(values, r).mean() for r in range(7)])
    found = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert jackknife(float(values.mean()), without) == pytest.approx((found.low, found.high))
    assert jackknife(float(values.mean()), without) != pytest.approx(tuple(np.quantile(without, [0.025, 0.975])))
    for nothing in (np.ones(8), 0.1 + np.array([0, 1e-17, -1e-17]), without[:1], np.append(without, np.nan)):
        assert np.isnan(jackknife(0.5, nothing)).all()


def test_shuffles_are_permutations():
    audit = make_audit(["a"] * 3, [0] * 3, coins(8, 3, np.random.default_rng(0)))
    shuffles = resampling(audit, 10, np.random.default_rng(1)).shuffles
    np.testing.assert_array_equal(np.sort(shuffles, axis=1), np.tile(np.arange(8), (len(shuffles), 1)))
    assert len(np.unique(shuffles, axis=0)) > 190
