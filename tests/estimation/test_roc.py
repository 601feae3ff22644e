from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.estimation.roc import RateEstimate, auc, null_tpr, rates, smallest_fpr, tpr
from fedmem.estimation.two_way import influence, interval, variance
from tests.banks import coins


def naive_auc(scores: FloatArray, is_in: BoolArray) -> float:
    """Every pair of a member and a non-member that are different examples, one by one."""
    won = total = 0.0
    for i in np.argwhere(is_in & ~np.isnan(scores)):
        for o in np.argwhere(~is_in & ~np.isnan(scores)):
            if i[1] == o[1]:
                continue
            a, b = scores[tuple(i)], scores[tuple(o)]
            won += (a > b) + 0.5 * (a == b)
            total += 1
    return won / total if total else math.nan


def naive_tpr(scores: FloatArray, is_in: BoolArray, fpr: float) -> float:
    """Every threshold, one by one."""
    ok = ~np.isnan(scores)
    all_in, all_out = (is_in & ok).sum(), (~is_in & ok).sum()
    if not all_in or not all_out:
        return math.nan
    best = 0.0
    for threshold in np.unique(scores[ok]):
        accepted = ok & (scores >= threshold)
        if (~is_in & accepted).sum() <= fpr * all_out * (1 + 1e-12):
            best = max(best, (is_in & accepted).sum() / all_in)
    return best


@given(seed=st.integers(0, 10**6), levels=st.sampled_from([2, 5, 1000]), fpr=st.sampled_from([0.0, 0.05, 0.25, 1.0]))
def test_auc_and_tpr_equal_the_naive_loops(seed: int, levels: int, fpr: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(6, 5)).astype(float)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    is_in = rng.random(scores.shape) < 0.5
    np.testing.assert_allclose(auc(scores, is_in).value, naive_auc(scores, is_in))
    np.testing.assert_allclose(tpr(scores, is_in, fpr).value, naive_tpr(scores, is_in, fpr))


@given(seed=st.integers(0, 10**6), levels=st.sampled_from([3, 1000]))
def test_shares_and_weights_add_up_to_the_value(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores, is_in = rng.integers(levels, size=(8, 6)).astype(float), coins(8, 6, rng)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    for found in (auc(scores, is_in), tpr(scores, is_in, 0.25)):
        members, others = found.weights > 0, found.weights < 0
        assert (members <= is_in & ~np.isnan(scores)).all()
        assert (others <= ~is_in & ~np.isnan(scores)).all()
        assert found.weights[members].sum() == pytest.approx(1)
        assert found.weights[others].sum() == pytest.approx(-1)
        assert (found.weights * found.shares)[members].sum() == pytest.approx(found.value)
    area = auc(scores, is_in)
    assert -(area.weights * area.shares)[area.weights < 0].sum() == pytest.approx(1 - area.value)


def without_each(
    statistic: Callable[[FloatArray, BoolArray], RateEstimate], scores: FloatArray, is_in: BoolArray
) -> float:
    """The variance that leaving out example after example gives (jackknife)."""
    m = scores.shape[1]
    left = np.array([statistic(np.delete(scores, j, 1), np.delete(is_in, j, 1)).value for j in range(m)])
    return float((m - 1) / m * np.square(left - left.mean()).sum())


def test_contributions_of_examples_are_those_of_leaving_them_out() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        is_in = coins(16, 40, rng)
        scores = 2 * rng.normal(size=40) + rng.normal(size=(16, 40)) + 1.0 * is_in
        found = auc(scores, is_in)
        of_examples = np.square(influence(found.weights, found.shares).examples).sum()
        assert of_examples == pytest.approx(without_each(auc, scores, is_in), rel=0.1)
    slopes = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        is_in = coins(16, 80, rng)
        scores = rng.normal(size=(16, 80)) + (1.0 + 0.5 * rng.normal(size=80)) * is_in
        found = tpr(scores, is_in, 0.2)
        of_examples = np.square(influence(found.weights, found.shares).examples).sum()
        jack = without_each(lambda s, i: tpr(s, i, 0.2), scores, is_in)
        slopes.append(of_examples / jack)
    assert 0.6 < np.median(slopes) < 1.4


def test_a_threshold_that_moves_is_part_of_the_error_of_a_rate() -> None:
    rng = np.random.default_rng(0)
    is_in, scores = coins(16, 40, rng), rng.normal(size=(16, 40))
    found = tpr(scores, is_in, 0.1)
    outs = found.weights < 0
    assert found.shares[outs].max() > 0
    alone = influence(np.where(outs, 0.0, found.weights), found.shares)
    assert variance(influence(found.weights, found.shares)) != pytest.approx(variance(alone), rel=0.01)


def test_auc_of_all_ties_is_a_half_and_tpr_is_nothing() -> None:
    scores, is_in = np.zeros((4, 3)), np.arange(12).reshape(4, 3) % 2 == 0
    assert auc(scores, is_in).value == 0.5
    assert tpr(scores, is_in, 0.5).value == 0.0
    assert tpr(scores, is_in, 1.0).value == 1.0


def test_auc_of_one_example_is_unknown() -> None:
    """An example against itself in another run is another question than member against non-member."""
    assert math.isnan(auc(np.array([[1.0], [0.0]]), np.array([[True], [False]])).value)


def test_auc_excludes_pairs_of_an_example_with_itself() -> None:
    """d = 1 within examples of very different difficulty: Phi(d / sqrt(2 (sd^2 + noise^2))) between examples."""
    rng, found, with_self = np.random.default_rng(3), [], []
    for _ in range(100):
        is_in = coins(32, 24, rng)
        scores = 10 * rng.normal(size=24) + 0.5 * rng.normal(size=(32, 24)) + is_in
        found.append(auc(scores, is_in).value)
        with_self.append((scores[is_in][:, None] > scores[~is_in]).mean())
    truth = NormalDist().cdf(1 / math.sqrt(2 * (10**2 + 0.5**2)))
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - truth) < 3 * error
    assert np.mean(with_self) - truth > 5 * error


def test_auc_and_tpr_without_one_side_are_nan() -> None:
    for side in (True, False):
        is_in = np.full((2, 2), side)
        assert math.isnan(auc(np.zeros((2, 2)), is_in).value)
        assert math.isnan(tpr(np.zeros((2, 2)), is_in, 0.1).value)


def test_tpr_accepts_exactly_the_allowed_number_of_outs() -> None:
    scores = np.concatenate([np.arange(100.0), np.arange(100.0) + 0.5])[None]  # each member just above its out
    is_in = np.arange(200)[None] >= 100
    # Ten outs may be accepted: those from 90 up; the members above out 89 are 89.5, 90.5, ..., 99.5.
    assert tpr(scores, is_in, 10 / 100).value == 0.11
    assert tpr(scores, is_in, 0.0).value == 0.01


def test_smallest_fpr_is_ten_outs() -> None:
    assert smallest_fpr(10) == 1.0
    assert smallest_fpr(1000) == 0.01
    assert math.isnan(smallest_fpr(9))
    assert math.isnan(smallest_fpr(0))


@pytest.mark.parametrize(
    ("outs", "expected"),
    [(9, ()), (10, (1.0,)), (50, (0.2,)), (100, (0.1,)), (640, (0.1, 10 / 640)), (20_000, (0.1, 0.01, 0.001, 0.0005))],
)
def test_standard_rates_need_ten_false_positives(outs: int, expected: tuple[float, ...]) -> None:
    assert rates(outs) == expected
    assert all(rate * outs >= 10 for rate in rates(outs))


def test_the_null_of_a_rate_is_what_guessing_has() -> None:
    rng = np.random.default_rng(6)
    for fpr in (0.1, 10 / 240):
        found = []
        for _ in range(300):
            is_in = coins(16, 30, rng)
            found.append(tpr(rng.normal(size=(16, 30)), is_in, fpr).value)
        assert np.mean(found) == pytest.approx(null_tpr(240, fpr), abs=3 * float(np.std(found)) / math.sqrt(300))
    assert null_tpr(240) == null_tpr(240, 10 / 240) == 11 / 241


def covered(step: float, fpr: float, truth: float) -> float:
    """The share of intervals that hold the rate, for normal scores rounded to steps, members 1.5 higher."""
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(repetitions := 150):
        is_in = coins(30, 10, rng)
        scores = np.round((rng.normal(size=is_in.shape) + 1.5 * is_in) / step) * step
        estimate = tpr(scores, is_in, fpr)
        low, high = interval(estimate.value, influence(estimate.weights, estimate.shares), 10, (0.0, 1.0))
        found += low <= truth <= high
    return found / repetitions


@pytest.mark.parametrize(("step", "fpr", "threshold"), [(0.5, 0.1, 1.75), (1.0, 0.07, 1.5)])
def test_intervals_hold_where_scores_tie(
    step: float, fpr: float, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a threshold halfway between rounded scores: the lowest whose false positive rate is allowed
    normal = NormalDist()
    assert 1 - normal.cdf(threshold) <= fpr < 1 - normal.cdf(threshold - step)
    truth = 1 - normal.cdf(threshold - 1.5)
    assert covered(step, fpr, truth) >= 0.9
    monkeypatch.setattr("fedmem.estimation.roc._slope_of_ties", lambda *_: 0.0)
    assert covered(step, fpr, truth) < 0.75


def test_a_tie_far_from_the_threshold_changes_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    is_in = coins(30, 10, rng)
    scores = np.maximum(rng.normal(size=is_in.shape) + is_in, 0.0)
    found = tpr(scores, is_in, 0.1)
    monkeypatch.setattr("fedmem.estimation.roc._slope_of_ties", lambda *_: 0.0)
    np.testing.assert_array_equal(found.shares, tpr(scores, is_in, 0.1).shares)
