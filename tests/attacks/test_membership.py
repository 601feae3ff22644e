from __future__ import annotations

import math
from collections.abc import Sequence
from math import log1p
from typing import Literal

import numpy as np
import pytest
from scipy.stats import norm

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.rmia import Rmia
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import MembershipAttack, Signals
from fedmem.estimation.roc import auc
from tests.banks import coins, signals


def naive_lira(margin: FloatArray, is_in: BoolArray, pooled: bool) -> FloatArray:
    """Online LiRA with loops: for each target run, all statistics from the other runs."""
    runs, m = margin.shape
    scores = np.full((runs, m), np.nan)
    for r in range(runs):
        others = [k for k in range(runs) if k != r]
        groups = {
            coin: [
                [margin[k, j] for k in others if is_in[k, j] == coin and not np.isnan(margin[k, j])] for j in range(m)
            ]
            for coin in (True, False)
        }
        pool = {}
        for coin, columns in groups.items():
            squares = sum(sum((x - np.mean(c)) ** 2 for x in c) for c in columns if c)
            freedom = sum(len(c) - 1 for c in columns if c)
            pool[coin] = squares / freedom if freedom else math.nan
        for j in range(m):
            if np.isnan(margin[r, j]):
                continue
            logs = {}
            for coin in (True, False):
                c = groups[coin][j]
                if not c or (not pooled and len(c) < 2):
                    logs[coin] = math.nan
                    continue
                variance = max(pool[coin] if pooled else np.var(c, ddof=1), 1e-12)
                wide = math.sqrt(1 + 1 / len(c))
                standard = (margin[r, j] - np.mean(c)) / wide
                logs[coin] = norm.logpdf(standard, 0, math.sqrt(variance))
            scores[r, j] = logs[True] - logs[False]
    return scores


def everything(scores: FloatArray, is_in: BoolArray) -> float:
    return auc(scores, is_in).value


@pytest.mark.parametrize("variance", ["pooled", "per_example"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_lira_equals_a_naive_loop(variance: Literal["auto", "pooled", "per_example"], missing: float) -> None:
    rng = np.random.default_rng(0)
    is_in = coins(10, 7, rng)
    margin = rng.normal(size=(10, 7)) * rng.gamma(2, size=7) + 3 * rng.normal(size=7) + is_in
    margin[rng.random(margin.shape) < missing] = np.nan
    got = Lira(variance=variance).scores(signals(margin, is_in))
    np.testing.assert_allclose(got, naive_lira(margin, is_in, variance == "pooled"), rtol=1e-9, atol=1e-9)


def test_auto_pools_below_64_runs() -> None:
    rng = np.random.default_rng(1)
    for runs, own in ((62, Lira(variance="pooled")), (64, Lira(variance="per_example"))):
        is_in = coins(runs, 5, rng)
        margin = rng.normal(size=(runs, 5))
        np.testing.assert_array_equal(Lira().scores(signals(margin, is_in)), own.scores(signals(margin, is_in)))


def test_the_target_run_enters_no_statistic() -> None:
    rng = np.random.default_rng(2)
    is_in, margin = coins(8, 4, rng), rng.normal(size=(8, 4))
    moved = margin.copy()
    moved[3, 1:] += 100  # the other examples of the target run, which share its pooled variance
    before, after = Lira().scores(signals(margin, is_in)), Lira().scores(signals(moved, is_in))
    np.testing.assert_allclose(after[3, 0], before[3, 0])
    assert not np.allclose(after[2, 0], before[2, 0])


def test_lira_is_one_sided() -> None:
    rng = np.random.default_rng(3)
    is_in = coins(16, 30, rng)
    margin = rng.normal(size=(16, 30)) + 2 * is_in
    base = margin[:, 0] - margin[~is_in[:, 0], 0].mean()
    for low in (-2.0, -4.0):  # as far from the outs as members are, and further, on the wrong side
        target = margin.copy()
        target[0, 0] += low - base[0]
        assert Lira().scores(signals(target, is_in))[0, 0] < -2


def test_identical_margins_are_exact_ties_and_never_infinite() -> None:
    rng = np.random.default_rng(4)
    is_in = coins(8, 6, rng)
    margin = np.tile(rng.normal(size=6) / 3, (8, 1))
    for variance in ("pooled", "per_example"):
        assert (Lira(variance=variance).scores(signals(margin, is_in)) == 0).all()
    perfect = np.where(is_in, 1.0, 0.0)
    scores = Lira().scores(signals(perfect, is_in))
    assert np.isfinite(scores).all()
    assert everything(scores, is_in) == 1.0


def test_too_few_runs_give_nan() -> None:
    is_in = np.array([[True], [False], [False]])
    margin = np.array([[1.0], [0.0], [0.5]])
    scores = Lira().scores(signals(margin, is_in))
    assert np.isnan(scores).all()  # one in run: as a target it leaves none, and its variance is never known
    four = np.array([[True], [True], [False], [False]])
    assert np.isnan(
        Lira().scores(signals(np.array([[1.0], [2.0], [0.0], [0.5]]), four))
    ).all()  # one left has no spread


def test_a_column_never_observed_harms_no_other() -> None:
    rng = np.random.default_rng(5)
    is_in, margin = coins(8, 3, rng), rng.normal(size=(8, 3))
    margin[:, 2] = np.nan
    scores = Lira().scores(signals(margin, is_in))
    assert np.isnan(scores[:, 2]).all()
    np.testing.assert_allclose(scores[:, :2], Lira().scores(signals(margin[:, :2], is_in[:, :2])))


def test_large_offsets_do_not_cost_precision() -> None:
    rng = np.random.default_rng(6)
    is_in, margin = coins(8, 4, rng), rng.integers(-8, 8, size=(8, 4)) / 8
    shifted = margin + np.array([0.0, 2.0**20, -(2.0**24), 2.0**10])
    np.testing.assert_array_equal(Lira().scores(signals(shifted, is_in)), Lira().scores(signals(margin, is_in)))


def test_loss_threshold_is_the_negative_loss() -> None:
    margin = np.array([[0.0, 3.0, -800.0, np.nan, 40.0]])
    scores = LossThreshold().scores(signals(margin, np.zeros_like(margin, bool)))
    np.testing.assert_allclose(scores, [[-math.log(2), -log1p(math.exp(-3)), -800.0, np.nan, -math.exp(-40)]])


def test_loss_threshold_misses_what_lira_finds() -> None:
    rng = np.random.default_rng(7)
    is_in = coins(16, 60, rng)
    margin = 20 * rng.normal(size=60) + rng.normal(size=(16, 60)) + 2 * is_in
    assert everything(Lira().scores(signals(margin, is_in)), is_in) > 0.85
    assert everything(LossThreshold().scores(signals(margin, is_in)), is_in) < 0.6


def naive_rmia(
    margin: FloatArray, is_in: BoolArray, population: FloatArray, online: bool, gamma: float, a: float
) -> FloatArray:
    """The formulas of the paper with loops and plain probabilities; population (R, n) losses."""
    p, q = 1 / (1 + np.exp(-margin)), np.exp(-population)
    runs, m = p.shape
    scores = np.full((runs, m), np.nan)

    def line(outs: Sequence[float]) -> float:
        return float(((1 + a) * np.mean(outs) + 1 - a) / 2)

    for r in range(runs):
        others = [k for k in range(runs) if k != r]
        for j in range(m):
            ins = [p[k, j] for k in others if is_in[k, j] and not np.isnan(p[k, j])]
            outs = [p[k, j] for k in others if not is_in[k, j] and not np.isnan(p[k, j])]
            if np.isnan(p[r, j]) or not outs or (online and not ins):
                continue
            ratio = p[r, j] / ((np.mean(ins) + np.mean(outs)) / 2 if online else line(outs))
            beaten = 0
            for z in range(q.shape[1]):
                rest = [q[k, z] for k in others]
                beaten += ratio >= gamma * q[r, z] / (np.mean(rest) if online else line(rest))
            scores[r, j] = beaten / q.shape[1]
    return scores


def rmia_case(
    seed: int, runs: int = 10, m: int = 7, n: int = 40, effect: float = 1.0
) -> tuple[FloatArray, BoolArray, FloatArray]:
    rng = np.random.default_rng(seed)
    is_in = coins(runs, m, rng)
    margin = rng.normal(size=(runs, m)) + 2 * rng.normal(size=m) + effect * is_in
    population = np.logaddexp(0, -rng.normal(size=(runs, n)) - 2 * rng.normal(size=n))
    return margin, is_in, population


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("gamma", [1.0, 1.5])
def test_rmia_equals_a_naive_loop(mode: Literal["online", "offline"], gamma: float) -> None:
    margin, is_in, population = rmia_case(0)
    margin[np.random.default_rng(1).random(margin.shape) < 0.1] = np.nan
    got = Rmia(mode=mode, gamma=gamma, a=0.4).scores(signals(margin, is_in, population))
    expected = naive_rmia(margin, is_in, population, mode == "online", gamma, 0.4)
    np.testing.assert_allclose(got, expected)
    assert len(np.unique(expected[~np.isnan(expected)])) > 5
    for wrong in (
        naive_rmia(margin, is_in, population, mode == "online", 1 / gamma if gamma > 1 else 1.5, 0.4),
        naive_rmia(margin, ~is_in, population, False, gamma, 0.4) if mode == "offline" else got + 1,
        naive_rmia(-margin, is_in, population, mode == "online", gamma, 0.4),
    ):
        assert not np.allclose(got, wrong, equal_nan=True)


def test_rmia_reads_the_population_of_the_right_model() -> None:
    margin, is_in, first = rmia_case(2)
    second = rmia_case(3)[2]
    model = np.array([0, 1, 1, 0, -1, 0, 1])
    both = Signals(margin=margin, is_in=is_in, population=np.stack([first, second]), model=model)
    got = Rmia().scores(both)
    for number, population in enumerate((first, second)):
        own = model == number
        np.testing.assert_array_equal(got[:, own], Rmia().scores(signals(margin, is_in, population))[:, own])
    assert np.isnan(got[:, model < 0]).all()


def test_rmia_within_one_model_orders_by_its_ratio() -> None:
    margin, is_in, population = rmia_case(4, m=30, n=500)
    population = np.sort(population, axis=1)
    p = 1 / (1 + np.exp(-margin))
    scores = Rmia().scores(signals(margin, is_in, population))
    for r in range(10):
        rest = np.arange(10) != r
        reference = [(p[rest & is_in[:, j], j].mean() + p[rest & ~is_in[:, j], j].mean()) / 2 for j in range(30)]
        order = np.argsort(p[r] / reference)
        assert (np.diff(scores[r, order]) >= 0).all()


def test_rmia_without_an_effect_is_at_chance_exactly_when_coins_are_exchanged() -> None:
    margin, is_in, population = rmia_case(5, effect=0.0)
    both = [everything(Rmia().scores(signals(margin, coin, population)), coin) for coin in (is_in, ~is_in)]
    assert sum(both) == pytest.approx(1.0)
    assert both[0] != 0.5


def test_rmia_counts_equality_and_ties() -> None:
    margin, is_in = np.zeros((6, 2)), coins(6, 2, np.random.default_rng(0))
    population = np.full((6, 5), math.log(2))
    assert (Rmia().scores(signals(margin, is_in, population)) == 1).all()
    assert (Rmia(gamma=1.0 + 1e-6).scores(signals(margin, is_in, population)) == 0).all()


def test_rmia_survives_probabilities_near_nothing() -> None:
    margin, is_in, population = rmia_case(6)
    scores = Rmia().scores(signals(margin - 2000, is_in, population + 3000))
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 2
    diverged = population.copy()
    diverged[3] = np.nan
    assert np.isnan(Rmia().scores(signals(margin, is_in, diverged))[3]).all()
    assert np.isfinite(np.delete(Rmia().scores(signals(margin, is_in, diverged)), 3, axis=0)).all()


def test_rmia_ties_small_effects_above_gamma_1_and_offline_does_not_see_what_is_improbable() -> None:
    """The two limits in its docstring."""
    rng = np.random.default_rng(9)
    is_in = coins(16, 40, rng)
    population = np.logaddexp(0, -2 - 0.05 * rng.normal(size=(16, 200)))
    small = signals(2 + 0.05 * rng.normal(size=(16, 40)) + 0.1 * is_in, is_in, population)
    assert (Rmia(gamma=2.0).scores(small) == 0).all()
    assert everything(Rmia(gamma=2.0).scores(small), is_in) == 0.5
    assert everything(Rmia().scores(small), is_in) > 0.75
    # Probabilities far below the floor, which differ more between examples than by membership.
    improbable = signals(-8 + 2 * rng.normal(size=40) + 0.3 * rng.normal(size=(16, 40)) + is_in, is_in, population)
    assert everything(Rmia(mode="offline").scores(improbable), is_in) < 0.65
    assert everything(Rmia(mode="offline", a=1.0).scores(improbable), is_in) > 0.7
    assert everything(Rmia().scores(improbable), is_in) > 0.85


def test_rmia_needs_a_population() -> None:
    margin, is_in, population = rmia_case(7)
    assert np.isnan(Rmia().scores(signals(margin, is_in))).all()
    assert np.isnan(Rmia().scores(signals(margin, is_in, population[:, :0]))).all()


@pytest.mark.parametrize("attack", [Lira(), LossThreshold(), Rmia(), Rmia(mode="offline")])
def test_contract(attack: MembershipAttack) -> None:
    rng = np.random.default_rng(8)
    is_in, margin = coins(8, 9, rng), rng.normal(size=(8, 9))
    margin[2, 3] = np.nan
    population = np.logaddexp(0, rng.normal(size=(8, 50)))
    kept = margin.copy()
    scores = attack.scores(signals(margin, is_in, population))
    assert isinstance(attack, MembershipAttack)
    assert attack.knows
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(scores), np.isnan(margin))
    np.testing.assert_array_equal(margin, kept)
    order = rng.permutation(9)
    np.testing.assert_allclose(attack.scores(signals(margin[:, order], is_in[:, order], population)), scores[:, order])
    member = margin + 3 * is_in
    assert everything(attack.scores(signals(member, is_in, population)), is_in) > 0.9
