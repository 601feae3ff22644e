"""Tests of `fedmem/estimation/coin_groups.py`, and of all that must know that examples of a group share their coin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import Estimate, Estimator, Influence, View
from fedmem.estimation.coin_groups import effective_groups, num_clusters, over_coin_groups
from fedmem.estimation.estimates import count_clusters, estimates_in_view
from fedmem.estimation.randomisation import deals_of, num_redeals, of_means, permute_coins
from fedmem.estimation.two_way import combine, half_width, interval, of_difference, of_ins, variance
from fedmem.estimators.audit import Audit
from fedmem.estimators.membership import Membership
from fedmem.estimators.memorisation import Memorisation
from fedmem.estimators.v_information import VInformation
from tests.banks import coins, make_audit, make_view

Bank = tuple[FloatArray, AuditSet, float]


def grouped(is_in: BoolArray, each: int, kind: str = "typical") -> AuditSet:
    """Groups of so many examples, with these coins (R, G)."""
    m = is_in.shape[1] * each
    audit = make_audit([kind] * m, [0] * m, np.repeat(is_in, each, axis=1))
    return replace(audit, coin_group=np.repeat(np.arange(is_in.shape[1]) * each, each))


def bank(
    rng: np.random.Generator, runs: int, groups: int, each: int, *, gain: float = 1.0, spread: float = 1.0
) -> Bank:
    """Values with a noise of runs and a noise of groups in a run, whose size differs by `spread` between in and out.

    The effects of groups differ. The truth is the mean effect: of these groups where they are few, else of all.
    """
    audit = grouped(coins(runs, groups, rng), each)
    effects = np.repeat(gain + rng.normal(size=groups) * (gain != 0), each)
    noise = np.repeat(rng.normal(size=(runs, groups)), each, axis=1) * np.where(audit.is_in, spread, 1.0)
    own = rng.normal(size=(1, groups * each)) + 0.3 * rng.normal(size=audit.is_in.shape)
    values = own + rng.normal(size=(runs, 1)) + noise + audit.is_in * effects
    return values, audit, float(effects.mean()) if groups < 8 else gain


def covers(values: FloatArray, audit: AuditSet, truth: float, rows: IntArray) -> bool:
    """Whether the interval of the difference of in and out has the truth."""
    means = [column[coin].mean() - column[~coin].mean() for column, coin in zip(values.T, audit.is_in.T, strict=True)]
    parts = over_coin_groups(of_difference(values, audit.is_in), audit, rows)
    clusters = num_clusters(audit, rows, np.ones(len(values), dtype=bool))
    return abs(float(np.mean(means)) - truth) <= half_width(float(np.mean(means)), parts, clusters)


def coverage(number: int, runs: int, groups: int, each: int, *, known: bool = True, spread: float = 1.0) -> float:
    rng, hits = np.random.default_rng(5), 0
    for _ in range(number):
        values, audit, truth = bank(rng, runs, groups, each, spread=spread)
        audit = audit if known else replace(audit, coin_group=None)
        hits += covers(values, audit, truth, np.arange(len(audit)))
    return hits / number


def null_view(
    seed: int, *, runs: int = 16, groups: int = 12, each: int = 5, draws: int = 99, known: bool = True
) -> View:
    """No example changes anything; in a run the examples of a group say nearly the same."""
    rng = np.random.default_rng(seed)
    values, audit, _ = bank(rng, runs, groups, each, gain=0.0)
    view = make_view(values, audit.is_in, kind=["typical"] * len(audit), round_number=None, draws=0)
    audit = replace(view.audit, coin_group=audit.coin_group if known else None)
    return replace(view, audit=audit, redeals=permute_coins(audit, draws, np.random.default_rng(seed)))


def by_probability(view: View) -> Estimate:
    return estimates_in_view(Memorisation(), view)[1]


def test_without_groups_nothing_is_changed() -> None:
    rng = np.random.default_rng(0)
    audit = make_audit(["typical"] * 9, [0] * 9, coins(8, 9, rng))
    parts, rows = of_difference(rng.normal(size=(8, 9)), audit.is_in), np.arange(9)
    assert over_coin_groups(parts, audit, rows) is parts
    assert not audit.shares_coins(rows)
    assert (audit.num_coin_groups(rows), audit.coin_groups.tolist()) == (9, list(range(9)))
    assert num_clusters(audit, rows, np.ones(8, dtype=bool)) == 8
    pair = replace(audit, coin_group=np.array([0, 0, *range(2, 9)]))
    assert over_coin_groups(parts, pair, rows[2:]) is parts, "these are drawn alone"


def test_coins_of_groups_are_dealt_together() -> None:
    audit = null_view(0, runs=8, groups=2, each=3).audit
    redeals = permute_coins(audit, 20, np.random.default_rng(1))
    dealt = redeals.coins.reshape(21, 8, 2, 3)
    assert (dealt == dealt[..., :1]).all()
    assert (redeals.coins.sum(1) == 4).all()
    assert (dealt[1:, :, 0, 0] != dealt[1:, :, 1, 0]).any()
    many = permute_coins(audit, 500, np.random.default_rng(1))
    assert num_redeals(many, np.arange(3)) == 69, "8 over 4, less one, for three examples as for one"
    every = deals_of(many, np.array([2, 0, 1]))
    assert every.shape == (70, 8, 3)
    assert (every == every[..., :1]).all()
    assert len(np.unique(every[..., 0], axis=0)) == 70
    np.testing.assert_array_equal(every[0], audit.is_in[:, [2, 0, 1]])


def test_deals_without_groups_are_as_before() -> None:
    view = null_view(3, known=False)
    alone = replace(view.audit, coin_group=np.arange(len(view.audit)))
    again = permute_coins(alone, 99, np.random.default_rng(3))
    np.testing.assert_array_equal(again.coins, view.redeals.coins)


@pytest.mark.parametrize("groups", [1, 12])
def test_p_holds_its_level_and_that_of_examples_does_not(groups: int) -> None:
    def p(seed: int, *, known: bool) -> float:
        view = null_view(seed, groups=groups, known=known)
        return of_means(view.margin[:, 0], np.arange(5 * groups), view.redeals)

    found = np.array([[p(seed, known=known) for known in (True, False)] for seed in range(100)])
    rejected = (found <= 0.1).mean(0)
    assert abs(rejected[0] - 0.1) <= 3.5 * 0.03
    assert rejected[1] > 0.25, "the test can fail"


@pytest.mark.statistical
@pytest.mark.parametrize("runs", [16, 32])
def test_p_of_one_group_is_uniform_under_the_null(runs: int) -> None:
    views = (null_view(seed, runs=runs, groups=1) for seed in range(1000))
    found = np.array([of_means(view.margin[:, 0], np.arange(5), view.redeals) for view in views])
    levels = np.array([0.02, 0.1, 0.25, 0.5, 0.75])
    shares = (found[:, None] <= levels + 1e-9).mean(0)
    assert (np.abs(shares - levels) <= 3.5 * np.sqrt(levels * (1 - levels) / 1000)).all()


def test_memorisation_has_the_p_of_groups() -> None:
    view = null_view(5)
    probability = 1 / (1 + np.exp(-view.margin[:, 0]))
    assert by_probability(view).p == of_means(probability, np.arange(60), view.redeals)
    assert by_probability(view).p != by_probability(null_view(5, known=False)).p


@pytest.mark.parametrize(("groups", "each"), [(1, 20), (4, 5), (12, 5)])
def test_intervals_of_groups_cover(groups: int, each: int) -> None:
    assert coverage(150, 16, groups, each) >= 0.9


def test_intervals_that_ignore_groups_do_not_cover() -> None:
    assert coverage(150, 32, 12, 5) >= 0.9
    assert coverage(150, 32, 12, 5, known=False) < 0.87, "the test can fail"


@pytest.mark.statistical
@pytest.mark.parametrize("runs", [16, 32])
@pytest.mark.parametrize(("groups", "each", "spread"), [(1, 20, 1.0), (1, 20, 4.0), (12, 4, 1.0)])
def test_coverage_of_a_thousand_banks(runs: int, groups: int, each: int, spread: float) -> None:
    found = coverage(1000, runs, groups, each, spread=spread)
    assert 0.93 <= found <= 0.97 + 0.005


def test_one_large_group_among_small_ones_is_no_sample() -> None:
    """It has most of the mean: eight groups counted in full gave an interval that covered in a third of banks."""
    sizes = np.array([30, 1, 1, 1, 1, 1, 1, 1])
    group = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rng, hits, rows = np.random.default_rng(5), 0, np.arange(sizes.sum())
    for _ in range(100):
        is_in = np.repeat(coins(16, len(sizes), rng), sizes, axis=1)
        audit = replace(make_audit(["typical"] * len(rows), [0] * len(rows), is_in), coin_group=group)
        effect, noise = (np.repeat(rng.normal(size=(n, len(sizes))), sizes, axis=1) for n in (1, 16))
        own = rng.normal(size=(16, 1)) + 0.3 * rng.normal(size=is_in.shape)
        hits += covers(own + noise + is_in * effect, audit, float(effect.mean()), rows)
    assert hits >= 90
    assert (effective_groups(audit, rows), effective_groups(audit, rows[29:])) == (1, 8)
    assert effective_groups(audit, rows[:0]) == 0
    assert num_clusters(audit, rows, np.ones(16, dtype=bool)) == 8, "the runs of one side"


def test_variance_of_one_group_is_that_of_two_means() -> None:
    """s²/n of the runs with the group plus s²/n of those without, of the mean over its examples."""
    values, audit, _ = bank(np.random.default_rng(2), 16, 1, 6)
    means, coin = values.mean(1), audit.is_in[:, 0]
    parts = over_coin_groups(of_difference(values, audit.is_in), audit, np.arange(6))
    assert variance(parts) == pytest.approx(means[coin].var(ddof=1) / 8 + means[~coin].var(ddof=1) / 8)
    only_in = over_coin_groups(of_ins(values, audit.is_in), audit, np.arange(6))
    assert variance(only_in) == pytest.approx(means[coin].var(ddof=1) / 8)
    assert num_clusters(audit, np.arange(6), np.ones(16, dtype=bool)) == 8, "t has R/2 - 1 degrees of freedom"


def test_copies_of_an_example_in_a_group_are_no_further_evidence() -> None:
    """Groups of equal examples have the interval and the p of one example each."""
    rng = np.random.default_rng(4)
    is_in, values = coins(16, 10, rng), rng.normal(size=(16, 10))
    alone = make_view(values, is_in, kind=["typical"] * 10, round_number=None, draws=0)
    three = make_view(
        np.repeat(values, 3, 1), np.repeat(is_in, 3, 1), kind=["typical"] * 30, round_number=None, draws=0
    )
    three = replace(three, audit=replace(three.audit, coin_group=np.repeat(np.arange(10) * 3, 3)))
    single, threefold = by_probability(alone), by_probability(three)
    assert threefold.value == pytest.approx(single.value)
    assert variance(threefold.influence) == pytest.approx(variance(single.influence))
    assert count_clusters(three, threefold) == count_clusters(alone, single) == 10
    assert (threefold.n, single.n) == (30, 10), "n counts examples"


def test_few_runs_or_groups_have_no_interval_but_p() -> None:
    view = null_view(0, runs=14, groups=1)
    few = by_probability(view)
    assert np.isnan(interval(few.value, few.influence, count_clusters(view, few))).all(), "7 runs on each side"
    assert 0 < few.p <= 1


def test_one_group_against_examples_drawn_alone() -> None:
    """A difference of kinds has the noise of runs of both, which cancels where both have it."""
    rng = np.random.default_rng(6)
    gap = []
    for _ in range(40):
        shared = rng.normal(size=(16, 1))
        first, second = coins(16, 1, rng), coins(16, 12, rng)
        is_in = np.concatenate([np.repeat(first, 4, 1), second], axis=1)
        audit = make_audit(["typical"] * 4 + ["other"] * 12, [0] * 16, is_in)
        audit = replace(audit, coin_group=np.array([0] * 4 + list(range(4, 16))))
        values = shared + 0.1 * rng.normal(size=is_in.shape)
        parts = []
        for rows in (np.arange(4), np.arange(4, 16)):
            whole = of_difference(values[:, rows], is_in[:, rows])
            placed = Influence(examples=np.zeros(16), cells=np.zeros((16, 16)))
            placed.examples[rows], placed.cells[:, rows] = whole.examples, whole.cells
            parts.append(over_coin_groups(placed, audit, rows))
        together = combine([(1.0, parts[0]), (-1.0, parts[1])])
        assert parts[0].runs is not None
        assert parts[1].runs is None
        by_run = parts[0].runs - parts[1].cells.sum(1)
        left = (parts[1].examples ** 2).sum() + (by_run**2).sum() - (parts[1].cells ** 2).sum()
        gap.append(variance(together) - max(left, (parts[1].examples ** 2).sum() / 2))
    np.testing.assert_allclose(gap, 0.0, atol=1e-12)


def test_auc_of_groups_has_no_rates_and_the_null_of_its_deals() -> None:
    view, apart = null_view(1), null_view(1, known=False)
    for attack in (LossThreshold(), Lira()):
        estimator: Estimator = Membership(attack=attack)
        assert {e.metric for e in estimates_in_view(estimator, view)} == {"auc"}
        assert {e.metric for e in estimates_in_view(estimator, apart)} == {"auc", "tpr"}
    assert not Membership(attack=LossThreshold()).membership_scores(view)
    assert len(Membership(attack=LossThreshold()).membership_scores(apart)) == 1
    (loss,) = estimates_in_view(Membership(attack=LossThreshold()), view)
    assert loss.null == 0.5
    nulls, values = [], []
    for seed in range(12):
        (found,) = estimates_in_view(Membership(attack=Lira()), null_view(seed, groups=1, each=10, draws=60))
        nulls.append(found.null)
        values.append(found.value)
    assert np.mean(nulls) < 0.48, "leaving the run out makes its side noisier, and all examples are on one side"
    assert abs(np.mean(values) - np.mean(nulls)) < 0.12


def test_p_of_auc_holds_its_level_and_that_of_examples_does_not() -> None:
    def p(seed: int, *, known: bool) -> float:
        (found, *_) = estimates_in_view(Membership(attack=LossThreshold()), null_view(seed, groups=1, known=known))
        return found.p

    found = np.array([[p(seed, known=known) for known in (True, False)] for seed in range(100)])
    rejected = (found <= 0.1).mean(0)
    assert rejected[0] <= 0.1 + 3.5 * 0.03
    assert rejected[1] > 0.4, "the test can fail"


@pytest.mark.statistical
@pytest.mark.parametrize("groups", [1, 12])
def test_interval_of_auc_covers_one_half(groups: int) -> None:
    def is_covered(seed: int) -> bool:
        view = null_view(seed, runs=32, groups=groups, each=4, draws=0)
        (found,) = estimates_in_view(Membership(attack=LossThreshold()), view)
        low, high = interval(found.value, found.influence, count_clusters(view, found), found.bounds)
        return low <= 0.5 <= high

    assert 0.92 <= np.mean([is_covered(seed) for seed in range(500)]) <= 0.985


def other_estimates(view: View) -> Iterator[Estimate]:
    view = replace(view, label_counts=np.ones((1, 2), dtype=np.int64))
    yield from (e for e in estimates_in_view(VInformation(), view) if e.metric == "v_information_gain")


def test_gains_of_signals_and_bits_count_groups() -> None:
    """`estimate_in_and_out` is behind signals, trajectories, consistency and V-information."""
    found = np.array(
        [[next(other_estimates(null_view(seed, known=known))).p for known in (True, False)] for seed in range(40)]
    )
    rejected = (found <= 0.1).mean(0)
    assert rejected[0] <= 0.1 + 3.5 * 0.048
    assert rejected[1] > 0.25, "the test can fail"


def test_audit_of_one_run_would_prove_too_much() -> None:
    """The coins of 6 groups are released by randomised response with epsilon 1/2, and the audit counts 60 trials."""
    epsilon, bounds = 0.5, []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        of_groups = coins(2, 6, rng)
        told = of_groups ^ (rng.random((2, 6)) > np.exp(epsilon) / (1 + np.exp(epsilon)))
        margin = np.repeat(np.where(told, 1.0, -1.0), 10, axis=1) + 1e-3 * rng.normal(size=(2, 60))
        view = make_view(margin, np.repeat(of_groups, 10, axis=1), round_number=1, draws=0)
        bounds += [found.value for _, found in Audit(guesses=1.0).tests(view) if found.metric == "epsilon_hat"]
    assert np.mean(np.array(bounds) > epsilon) > 0.1, "so that audits are refused where examples share a draw"
