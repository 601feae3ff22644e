from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.coin_law import CoinLaw
from fedmem.contracts.estimator import CoinPermutations
from fedmem.estimation.randomisation import (
    areas,
    deals_of,
    num_redeals,
    of_auc,
    of_means,
    of_statistic,
    permute_coins,
    two_sided,
)
from fedmem.estimation.roc import auc
from tests.banks import coins, make_audit


def audit_of(is_in: BoolArray) -> AuditSet:
    return make_audit(["a"] * is_in.shape[1], [0] * is_in.shape[1], is_in)


def every_deal(runs: int, m: int) -> BoolArray:
    """All ways to put half of the runs in for each of m examples, (P, R, m)."""
    column = [np.isin(np.arange(runs), chosen) for chosen in itertools.combinations(range(runs), runs // 2)]
    return np.array([np.stack(columns, axis=1) for columns in itertools.product(column, repeat=m)])


def statistic(values: FloatArray, is_in: BoolArray, gap: bool = True) -> float:
    """By the definition, with loops; examples without a side are left out."""
    found = []
    for j in range(values.shape[1]):
        ins = [v for v, c in zip(values[:, j], is_in[:, j], strict=True) if c and not math.isnan(v)]
        outs = [v for v, c in zip(values[:, j], is_in[:, j], strict=True) if not c and not math.isnan(v)]
        if ins and (outs or not gap):
            found.append(np.mean(ins) - (np.mean(outs) if gap else 0.0))
    return np.mean(found) if found else math.nan


def test_redeals_permute_columns_and_begin_with_the_real_coins() -> None:
    is_in = coins(8, 5, np.random.default_rng(0))
    redeals = permute_coins(audit_of(is_in), 300, np.random.default_rng(1))
    assert redeals.coins.shape == (301, 8, 5)
    assert redeals.coins.dtype == bool
    np.testing.assert_array_equal(redeals.coins[0], is_in)
    assert (redeals.coins.sum(1) == 4).all()
    # fair, and independent across examples
    again = redeals.coins[1:].astype(float) - 0.5
    assert np.abs(again.mean(0)).max() < 0.15
    assert abs((again[:, :, 0] * again[:, :, 1]).mean()) < 0.02
    np.testing.assert_array_equal(np.sort(redeals.shuffles, axis=1), np.tile(np.arange(8), (200, 1)))
    assert len(np.unique(redeals.shuffles, axis=0)) > 190


def test_p_of_all_deals_is_the_share_of_those_as_far_out() -> None:
    rng = np.random.default_rng(2)
    for gap in (True, False):
        for own in (0, 7, 35):
            every = every_deal(4, 2)
            values = rng.integers(3, size=(4, 2)).astype(float)
            drawn = np.array([statistic(values, deal, gap) for deal in every])
            high, low = (drawn >= drawn[own] - 1e-9).mean(), (drawn <= drawn[own] + 1e-9).mean()
            order = np.concatenate([[own], np.delete(np.arange(len(every)), own)])
            redeals = CoinPermutations(coins=every[order], shuffles=np.zeros((0, 4), np.int64))
            assert of_means(values, np.arange(2), redeals, gap=gap) == pytest.approx(min(1, 2 * min(high, low)))


def test_p_leaves_out_what_was_not_seen() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(6, 4))
    values[:, 3] = np.nan
    values[:3, 1] = np.nan
    redeals = permute_coins(audit_of(coins(6, 4, rng)), 50, rng)
    for gap in (True, False):
        drawn = np.array([statistic(values[:, :3], deal[:, :3], gap) for deal in redeals.coins])
        assert of_means(values, np.arange(4), redeals, gap=gap) == pytest.approx(two_sided(drawn))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_areas_are_those_of_each_deal(levels: int) -> None:
    rng = np.random.default_rng(4)
    scores = rng.integers(levels, size=(6, 5)).astype(float)
    scores[rng.random(scores.shape) < 0.15] = np.nan
    redeals = permute_coins(audit_of(coins(6, 5, rng)), 40, rng)
    expected = np.array([auc(scores, deal).value for deal in redeals.coins])
    np.testing.assert_allclose(areas(scores, redeals.coins.astype(float)), expected)
    assert of_auc(scores, np.arange(5), redeals) == pytest.approx(two_sided(expected))


def test_equal_values_are_no_evidence_and_one_run_has_no_p() -> None:
    redeals = permute_coins(audit_of(coins(8, 5, np.random.default_rng(5))), 99, np.random.default_rng(6))
    assert of_means(np.full((8, 5), 0.1), np.arange(5), redeals) == 1.0
    assert of_auc(np.full((8, 5), 0.1), np.arange(5), redeals) == 1.0
    single = permute_coins(audit_of(np.ones((1, 5), bool)), 99, np.random.default_rng(6))
    assert math.isnan(of_means(np.ones((1, 5)), np.arange(5), single, gap=False))
    none = permute_coins(audit_of(coins(8, 5, np.random.default_rng(5))), 0, np.random.default_rng(6))
    assert math.isnan(of_means(np.ones((8, 5)), np.arange(5), none))


def test_two_sided_p_counts_rounding_as_ties_and_nan_as_extreme() -> None:
    assert two_sided(np.array([0.3, 0.3 + 1e-12, 0.1, 0.2])) == pytest.approx(1.0)
    assert two_sided(np.array([3.0, 0.0, 1.0, 2.0, 0.5])) == pytest.approx(0.4)
    assert two_sided(np.array([-3.0, 0.0, 1.0, 2.0, 0.5])) == pytest.approx(0.4)
    assert two_sided(np.array([3.0, np.nan, 1.0, 2.0, 0.5])) == pytest.approx(0.8)


def test_an_undefined_value_is_no_evidence() -> None:
    """All in runs diverged: their mean is NaN under the real coins alone, which is no sign of memorisation."""
    assert two_sided(np.array([np.nan, 3.0, 1.0, 2.0])) == 1.0
    values = np.array([[np.nan], [np.nan], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    is_in = np.arange(8)[:, None] < 2
    redeals = permute_coins(audit_of(is_in), 100, np.random.default_rng(0))
    assert of_means(values, np.arange(1), redeals) == 1.0


def test_p_holds_its_level_with_run_effects_and_finds_effects() -> None:
    """Eight runs that share their initial weights, and what a run does to all of its examples."""
    null, planted = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        is_in = coins(8, 12, rng)
        values = 3 * rng.normal(size=12) + 2 * rng.normal(size=(8, 1)) + rng.normal(size=(8, 12))
        redeals = permute_coins(audit_of(is_in), 99, rng)
        null.append((of_means(values, np.arange(12), redeals), of_auc(values, np.arange(12), redeals)))
        planted.append(of_means(values + 2.0 * is_in, np.arange(12), redeals))
    assert (np.mean(np.array(null) <= 0.05, axis=0) <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 400)).all()
    assert (np.mean(np.array(null) <= 0.5, axis=0) >= 0.4).all(), "and is not needlessly large"
    assert np.mean(np.array(planted) <= 0.05) > 0.6


@pytest.mark.parametrize(("runs", "m", "draws"), [(8, 1, 70), (8, 1, 1000), (4, 2, 36), (6, 1, 99)])
@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_few_deals_are_all_counted(runs: int, m: int, draws: int, levels: int) -> None:
    """By loops over every deal, with ties; another example has other coins, and does not matter."""
    rng = np.random.default_rng(runs + m + levels)
    is_in, rows = coins(runs, m + 1, rng), np.arange(m)
    values = rng.integers(levels, size=(runs, m + 1)).astype(float)
    ways = every_deal(runs, m)
    found: dict[str, Callable[[FloatArray, BoolArray], float]] = {
        "means": statistic,
        "ins": lambda v, c: statistic(v, c, False),
        "auc": lambda v, c: auc(v, c).value,
    }
    expected = {}
    for name, of in found.items():
        actual = of(values[:, :m], is_in[:, :m])
        others = np.array([of(values[:, :m], deal) for deal in ways])
        tails = ((others >= actual - 1e-9).mean(), (others <= actual + 1e-9).mean())
        expected[name] = min(1.0, 2 * min(tails))
    for seed in range(2):
        redeals = permute_coins(audit_of(is_in), draws, np.random.default_rng(seed))
        assert num_redeals(redeals, rows) == len(ways) - 1
        assert of_means(values, rows, redeals) == pytest.approx(expected["means"])
        assert of_means(values, rows, redeals, gap=False) == pytest.approx(expected["ins"])
        if m > 1:  # an example is never compared with itself
            assert of_auc(values[:, :m], rows, redeals) == pytest.approx(expected["auc"])


def test_smallest_p_of_one_example_is_that_of_its_runs() -> None:
    is_in = np.arange(8)[:, None] < 4
    for seed in range(3):
        redeals = permute_coins(audit_of(is_in), 1000, np.random.default_rng(seed))
        assert of_means(is_in.astype(np.float64), np.array([0]), redeals) == pytest.approx(2 / 70)


def test_deals_are_drawn_where_there_are_more_than_draws() -> None:
    is_in = coins(8, 2, np.random.default_rng(0))
    redeals = permute_coins(audit_of(is_in), 69, np.random.default_rng(1))
    np.testing.assert_array_equal(deals_of(redeals, np.array([0])), redeals.coins[:, :, :1])
    assert num_redeals(redeals, np.array([0])) == 69
    redeals = permute_coins(audit_of(is_in), 200, np.random.default_rng(1))
    assert num_redeals(redeals, np.arange(2)) == 200
    every = deals_of(redeals, np.array([1]))
    np.testing.assert_array_equal(every[0], is_in[:, 1:])
    assert len(np.unique(every, axis=0)) == len(every) == 70
    assert len(of_statistic(lambda deal: float(deal[0, 0]), np.array([1]), redeals, 70)) == 70
    assert len(of_statistic(lambda deal: float(deal[0, 0]), np.array([1]), redeals, 69)) == 69


def test_rates_of_runs_are_kept_and_coins_drawn_again() -> None:
    rates = np.array([0.1, 0.9, 0.5, 0.0, 1.0])
    is_in = np.random.default_rng(0).random((5, 3)) < rates[:, None]
    audit = replace(audit_of(is_in), coin_law=CoinLaw(law="owen"), inclusion_rates=rates)
    redeals = permute_coins(audit, 2000, np.random.default_rng(1))
    np.testing.assert_array_equal(redeals.coins[0], is_in)
    np.testing.assert_allclose(redeals.coins[1:].mean((0, 2)), rates, atol=0.03)
    assert len(redeals.shuffles) == 0, "runs are not exchangeable"
    # one example in five runs has few ways, which are not equally likely
    assert num_redeals(redeals, np.array([0])) == 2000
    assert len(deals_of(redeals, np.array([0]))) == 2001


def test_twins_and_groups_keep_their_coins_where_runs_have_rates() -> None:
    rates = np.tile([0.2, 0.5, 0.8], 2)
    is_in = np.tile(np.random.default_rng(0).random((3, 2)) < 0.5, (2, 1))[:, [0, 1, 1]]
    audit = replace(
        audit_of(is_in),
        coin_law=CoinLaw(law="owen"),
        inclusion_rates=rates,
        coin_row=np.tile(np.arange(3), 2),
        coin_group=np.array([0, 1, 1]),
    )
    again = permute_coins(audit, 300, np.random.default_rng(1)).coins
    np.testing.assert_array_equal(again[:, :3], again[:, 3:])
    np.testing.assert_array_equal(again[:, :, 1], again[:, :, 2])
    np.testing.assert_allclose(again[1:, :3].mean((0, 2)), rates[:3], atol=0.08)
