"""Tests of `fedmem/probes/_survivals.py`: weights that rules have are recovered, and what is undefined is NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.probes._survivals import (
    atypicalities,
    rank_correlation,
    slope_within,
    survivals,
    survivals_along,
    thirds,
)

K, P = 6, 40


def updates_of(seed: int = 0, common: float = 0.0) -> FloatArray:
    """Updates of lengths that differ by client, with a common part."""
    rng = np.random.default_rng(seed)
    return (common * rng.standard_normal(P) + rng.standard_normal((K, P))) * rng.uniform(0.1, 5, (K, 1))


@pytest.mark.parametrize("common", [0.0, 3.0])
def test_weights_of_a_weighted_sum_are_recovered(common: float) -> None:
    updates, weights = updates_of(common=common), np.array([0.3, 0.0, 0.1, 0.25, -0.2, 0.55])
    own, unexplained = survivals(weights @ updates, updates)
    assert own == pytest.approx(K * weights, abs=1e-9)
    assert unexplained == pytest.approx(0, abs=1e-9)


def test_equal_weights_give_one_and_krum_the_chosen() -> None:
    updates = updates_of()
    assert survivals(updates.mean(axis=0), updates)[0] == pytest.approx(np.ones(K))
    assert survivals(updates[2], updates)[0] == pytest.approx([0, 0, K, 0, 0, 0], abs=1e-9)


def test_what_lies_outside_the_span_is_unexplained() -> None:
    """A part orthogonal to all updates, as long as the rest, changes no survival and is half of the square."""
    updates = updates_of()
    mean = updates.mean(axis=0)
    outside = np.linalg.svd(updates)[2][-1]
    own, unexplained = survivals(mean + np.linalg.norm(mean) * outside, updates)
    assert own == pytest.approx(np.ones(K))
    assert unexplained == pytest.approx(0.5)
    nothing, everything = survivals(outside, updates)
    assert nothing == pytest.approx(np.zeros(K), abs=1e-9)
    assert everything == pytest.approx(1)


def test_a_random_step_is_unexplained_up_to_chance() -> None:
    rng = np.random.default_rng(1)
    shares = [survivals(rng.standard_normal(P), updates_of(seed))[1] for seed in range(200)]
    assert np.mean(shares) == pytest.approx(1 - K / P, abs=0.02)


def test_least_squares_against_numpy() -> None:
    updates, step = updates_of(common=1.0), np.median(updates_of(common=1.0), axis=0)
    expected, (residual,), *_ = np.linalg.lstsq(updates.T, step, rcond=None)
    own, unexplained = survivals(step, updates)
    assert own == pytest.approx(K * expected)
    assert unexplained == pytest.approx(residual / (step @ step))


def test_dependent_updates_have_no_weights_of_their_own() -> None:
    """Two copies, and the sum of two others: the weights of these five are anything, that of the sixth is not."""
    updates = updates_of()
    updates[1] = 2 * updates[0]
    updates[4] = updates[2] + updates[3]
    own, unexplained = survivals(updates.mean(axis=0), updates)
    assert np.isnan(own).tolist() == [True] * 5 + [False]
    assert own[5] == pytest.approx(1)
    assert unexplained == pytest.approx(0, abs=1e-9)


def test_nearly_dependent_updates_are_judged_by_a_thousandth() -> None:
    updates = updates_of()
    rng = np.random.default_rng(2)
    for gap, is_undefined in ((3e-4, True), (1e-2, False)):
        updates[1] = updates[0] + gap * np.linalg.norm(updates[0]) * rng.standard_normal(P) / math.sqrt(P)
        own, _ = survivals(updates.mean(axis=0), updates)
        assert np.isnan(own[:2]).all() == is_undefined
        assert own[2:] == pytest.approx(np.ones(4), abs=1e-3)


def test_zero_updates_count_as_clients_and_are_undefined() -> None:
    updates = updates_of()
    updates[3] = 0
    own, _ = survivals(updates.mean(axis=0), updates)
    assert math.isnan(own[3])
    assert np.delete(own, 3) == pytest.approx(np.ones(K - 1))
    assert math.isnan(survivals_along(updates.mean(axis=0), updates)[3])
    own, unexplained = survivals(np.ones(P), np.zeros((K, P)))
    assert np.isnan(own).all()
    assert unexplained == 1


def test_more_clients_than_weights_determine_nothing() -> None:
    updates = updates_of()[:, :4]
    own, unexplained = survivals(updates.mean(axis=0), updates)
    assert np.isnan(own).all()
    assert unexplained == pytest.approx(0, abs=1e-9)


def test_a_step_of_length_zero_has_no_share() -> None:
    own, unexplained = survivals(np.zeros(P), updates_of())
    assert own.tolist() == [0.0] * K
    assert math.isnan(unexplained)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_broken_clients_do_not_count(broken: float) -> None:
    updates = updates_of()
    step = updates[[0, 1, 2, 4, 5]].mean(axis=0)
    updates[3, 0] = broken
    own, unexplained = survivals(step, updates)
    assert math.isnan(own[3])
    assert np.delete(own, 3) == pytest.approx(np.ones(K - 1))
    assert unexplained == pytest.approx(0, abs=1e-9)
    assert np.isnan(survivals_along(step, updates)).tolist() == [k == 3 for k in range(K)]
    assert np.isnan(atypicalities(updates)).tolist() == [k == 3 for k in range(K)]
    step[0] = broken
    own, unexplained = survivals(step, updates)
    assert np.isnan(own).all()
    assert math.isnan(unexplained)


def test_along_counts_what_others_push() -> None:
    """1 for orthogonal updates and equal weights, K for K copies, and weights alone do not say which."""
    orthogonal = np.eye(P)[:K] * np.arange(1, K + 1)[:, None]
    assert survivals_along(orthogonal.mean(axis=0), orthogonal) == pytest.approx(np.ones(K))
    copies = np.tile(updates_of()[:1], (K, 1))
    assert survivals_along(copies.mean(axis=0), copies) == pytest.approx(np.full(K, K))
    assert np.isnan(survivals(copies.mean(axis=0), copies)[0]).all()


def test_atypicality_leaves_the_client_out() -> None:
    updates = np.array([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    mean = np.array([0.5, 1.0])
    assert atypicalities(updates)[0] == pytest.approx(1 - 0.5 / np.linalg.norm(mean))
    assert atypicalities(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx([2, 2])
    assert np.isnan(atypicalities(updates[:1])).all()
    with_zero = atypicalities(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
    assert math.isnan(with_zero[1])
    assert with_zero[0] == pytest.approx(1 - 1 / math.sqrt(2))
    opposite = atypicalities(np.array([[1.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]))
    assert math.isnan(opposite[0])  # the others cancel


def test_rank_correlation_has_its_sign_and_ties() -> None:
    norms = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(np.array([4.0, 3.0, 2.0, 1.0]), norms) == (-1, 4)
    assert rank_correlation(norms**3, norms) == (1, 4)
    # rounding of zeros is no order: Krum chose the longest
    chosen, n = rank_correlation(np.array([2e-6, -1e-6, 1e-6, 4.0]), norms)
    assert chosen == pytest.approx(math.sqrt(0.6))
    assert n == 4
    reversed_zeros, _ = rank_correlation(np.array([-1e-6, 1e-6, 2e-6, 4.0]), norms)
    assert reversed_zeros == chosen
    # what differs by more than a thousandth is an order
    assert rank_correlation(np.array([1.0, 1.004, 1.008, 1.012]), norms) == (1, 4)


@pytest.mark.parametrize(
    ("survival", "values"),
    [
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        ([1.0003, 1.0, 0.9997], [1.0, 2.0, 3.0]),
        ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]),
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0, 2.0, math.nan], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, 2.0, math.nan]),
        ([], []),
    ],
)
def test_undefined_correlations_count_nothing(survival: list[float], values: list[float]) -> None:
    value, n = rank_correlation(np.array(survival), np.array(values))
    assert (math.isnan(value), n) == (True, 0)


def test_unrelated_survival_has_no_correlation_on_average() -> None:
    rng = np.random.default_rng(3)
    found = [rank_correlation(rng.random(8), rng.random(8))[0] for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20


def test_thirds_take_the_most_atypical() -> None:
    survival = np.arange(8.0)
    assert thirds(survival, survival) == (6.0, 2.0, 8)  # 3 of 8, by rounding
    assert thirds(survival, -survival) == (1.0, 5.0, 8)
    # at the edge of the third, all that are tied are in it
    assert thirds(np.array([1.0, 2.0, 6.0]), np.array([0.1, 0.5, 0.5])) == (4.0, 1.0, 3)
    # rounding is no gap
    first, second, n = thirds(np.array([1 + 1e-5, 1 + 2e-5, 1.0]), np.array([0.1, 0.2, 0.3]))
    assert (first - second, n) == (0, 3)
    for undefined in (np.full(3, 0.5), np.array([0.1, 0.2, np.nan]), np.array([0.1, 0.2, 0.2])[:2]):
        one, other, n = thirds(np.arange(float(len(undefined))), undefined)
        assert np.isnan([one, other]).all()
        assert n == 0


def simulated(seed: int, effect: float, runs: int = 16, clients: int = 6) -> tuple[float, float, float]:
    """Survivals over rounds, of clients that differ, and what each run and client has in common over rounds."""
    rng = np.random.default_rng(seed)
    shares = rng.integers(0, 3, (runs, clients)) / 2
    survival = 2 * rng.standard_normal(clients) + effect * shares + 0.3 * rng.standard_normal((runs, 1))
    survival = survival + 0.5 * rng.standard_normal((runs, clients))
    rows = [
        (shares[r, c], survival[r, c] + 0.2 * rng.standard_normal(), f"client {c}", r)
        for _ in range(3)
        for r in range(runs)
        for c in range(clients)
        if rng.random() < 0.6
    ]
    x, y, who, run = zip(*rows, strict=True)
    return slope_within(np.array(x), np.array(y), who, run)


def test_interval_of_the_gain_covers_null_and_effect() -> None:
    for effect in (0.0, 1.0):
        found = np.array([simulated(seed, effect) for seed in range(150)])
        assert found[:, 0].mean() == pytest.approx(effect, abs=0.06)
        assert np.mean((found[:, 1] <= effect) & (effect <= found[:, 2])) >= 0.9
    assert np.mean(found[:, 1] > 0) > 0.9


def test_gain_is_undefined_where_shares_are_alike() -> None:
    assert np.isnan(slope_within(np.ones(4), np.arange(4.0), ["a", "a", "b", "b"], [0, 1, 0, 1])).all()
    # clients that differ in their shares and survival, but not within themselves
    assert np.isnan(slope_within(np.array([0.0, 0, 1, 1]), np.arange(4.0), ["a", "a", "b", "b"], [0, 1, 0, 1])).all()
    slope, low, high = slope_within(np.array([0.0, 1.0]), np.array([1.0, 1.0]), ["a", "a"], [0, 1])
    assert slope == 0
    assert np.isnan([low, high]).all()  # equal weights: no certainty
