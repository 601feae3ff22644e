"""Tests of `fedmem/estimation/datamodeling.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.estimation.datamodeling import (
    DatamodelingScore,
    Influences,
    ScoredModels,
    balanced_half,
    ceiling,
    datamodel,
    mean_of_models,
    mean_score,
    order_within,
    score,
)
from tests.banks import coins

Q, N = 6, 20


def planted(seed: int, runs: int, snr: float, twins: int = 1) -> tuple[FloatArray, FloatArray, BoolArray, IntArray]:
    """τ (Q, N), outcomes (R, Q) = Σ τ · coins + noise, coins (R, N) and coin rows (R,)."""
    rng = np.random.default_rng(seed)
    tau = rng.normal(size=(Q, N))
    is_in = np.tile(coins(runs // twins, N, rng), (twins, 1))
    signal = is_in @ tau.T
    noise = signal.std(axis=0) / np.sqrt(snr) if snr else 1.0
    outcomes = (signal if snr else 0.0) + noise * rng.normal(size=signal.shape)
    return tau, outcomes, is_in, np.tile(np.arange(runs // twins), twins)


def models(influences: FloatArray, outcomes: FloatArray, is_in: BoolArray) -> ScoredModels:
    every = np.broadcast_to(influences, (len(outcomes), *influences.shape))
    omitted = np.zeros((outcomes.shape[1], is_in.shape[1]), dtype=bool)
    return ScoredModels(influences=mean_of_models(every), outcomes=outcomes, coins=is_in, omitted=omitted)


def found(part: ScoredModels, coin_rows: IntArray, shuffles: int = 0) -> DatamodelingScore:
    rng = np.random.default_rng(1)
    orders = rng.permuted(np.tile(np.arange(len(coin_rows)), (shuffles, 1)), axis=1)
    result = mean_score([part], balanced_half(part.coins, coin_rows), coin_rows, orders)
    assert result is not None
    return result


@pytest.mark.parametrize(("snr", "limit"), [(0.25, 0.45), (1.0, 0.71), (4.0, 0.89)])
def test_the_true_influences_reach_the_ceiling(snr: float, limit: float) -> None:
    results, tops = [], []
    for seed in range(4):
        tau, outcomes, is_in, rows = planted(seed, 128, snr, twins=2)
        part = models(tau, outcomes, is_in)
        results.append(found(part, rows))
        top, low, high = ceiling([outcomes], rows)
        assert low < top < high
        tops.append(top)
    assert np.mean([value.value for value in results]) == pytest.approx(limit, abs=0.05)
    assert np.mean(tops) == pytest.approx(limit, abs=0.05)
    value = results[-1]
    assert value.low < limit < value.high
    assert found(models(-tau, outcomes, is_in), rows).value == pytest.approx(-value.value)
    # scores of influences in any unit are the same; those of other examples are not
    assert found(models(1000 * tau, outcomes, is_in), rows).value == pytest.approx(value.value)
    assert abs(found(models(tau[:, ::-1], outcomes, is_in), rows).value) < 0.3


def test_equals_a_loop_over_targets_and_halves() -> None:
    tau, outcomes, is_in, rows = planted(3, 16, 1.0)
    half = balanced_half(is_in, rows)
    expected = []
    for i in range(Q):
        for source, goal in ((half, ~half), (~half, half)):
            means = [
                outcomes[source & is_in[:, j], i].mean() - outcomes[source & ~is_in[:, j], i].mean() for j in range(N)
            ]
            expected.append(spearmanr(is_in[goal] @ np.array(means), outcomes[goal, i]).statistic)
    part = replace(models(tau, outcomes, is_in), influences=datamodel(outcomes))
    assert found(part, rows).value == pytest.approx(np.mean(expected))
    omitted = np.zeros((Q, N), dtype=bool)
    omitted[[0, 2, 4, 5, 5], [2, 4, 0, 1, 3]] = True
    without = replace(models(tau, outcomes, is_in), omitted=omitted)
    zeroed = np.where(omitted, 0.0, tau)
    assert found(without, rows).value == pytest.approx(found(models(zeroed, outcomes, is_in), rows).value)


def test_sums_are_over_examples_that_are_in() -> None:
    """A sum over those that are out would have the opposite sign, up to a constant."""
    tau, outcomes, is_in, rows = planted(2, 32, 4.0)
    value = found(models(tau, outcomes, is_in), rows).value
    assert value > 0.7
    assert found(models(tau, outcomes, ~is_in), rows).value == pytest.approx(-value)


def test_overlapping_runs_are_refused() -> None:
    tau, outcomes, is_in, _ = planted(0, 16, 1.0)
    first, late = np.arange(16) < 9, np.arange(16) >= 8
    with pytest.raises(ValueError, match="from runs 8, on which"):
        score(Influences(values=tau, runs=first), outcomes, is_in, late)


def test_without_effect_only_the_same_runs_score_high() -> None:
    circular, ours, p = [], [], []
    for seed in range(60):
        _, outcomes, is_in, rows = planted(seed, 32, 0.0)
        everywhere = np.ones(32, dtype=bool)
        values = datamodel(outcomes)(everywhere, is_in)
        predictions = is_in @ values.T
        circular.append(np.mean([spearmanr(predictions[:, i], outcomes[:, i]).statistic for i in range(Q)]))
        part = replace(models(values, outcomes, is_in), influences=datamodel(outcomes))
        result = found(part, rows, shuffles=40)
        ours.append(result.value)
        p.append(result.p)
    assert np.mean(circular) > 0.6
    assert abs(np.mean(ours)) < 4 * np.std(ours) / np.sqrt(60)
    assert np.mean(np.array(p) <= 0.1) < 0.25
    assert np.mean(p) == pytest.approx(0.5, abs=0.15)


def test_p_is_small_with_an_effect_and_coins_stay_in_halves() -> None:
    tau, outcomes, is_in, rows = planted(5, 32, 4.0, twins=2)
    assert found(models(tau, outcomes, is_in), rows, shuffles=60).p < 0.05
    half = balanced_half(is_in, rows)
    order = order_within(half, np.random.default_rng(0).permutation(32), rows)
    assert (half[order] == half).all()
    moved = rows[order]
    assert (moved != rows).any()
    assert all(len(set(moved[rows == row])) == 1 for row in range(16))


def test_intervals_cover() -> None:
    """The expected score of the true influences is in most intervals."""
    results = []
    for seed in range(40):
        tau, outcomes, is_in, rows = planted(seed, 32, 1.0)
        results.append(found(models(tau, outcomes, is_in), rows))
    truth = np.mean([result.value for result in results])
    covered = np.mean([result.low <= truth <= result.high for result in results])
    assert covered > 0.85


def test_undefined_targets_are_left_out() -> None:
    tau, outcomes, is_in, rows = planted(0, 16, 4.0)
    outcomes[3] = np.nan  # a model that has diverged
    whole = found(models(tau, outcomes, is_in), rows)
    assert whole.n == Q
    assert whole.value > 0.6
    outcomes[5, 0] = np.nan
    outcomes[np.arange(16) != 3, 1] = 2.0
    values = tau.copy()
    values[2] = 0.0
    some = found(models(values, outcomes, is_in), rows)
    assert some.n == Q - 3
    values[:] = np.nan
    half = balanced_half(is_in, rows)
    assert mean_score([models(values, outcomes, is_in)], half, rows, np.empty((0, 16), np.int64)) is None
    assert mean_score([], half, rows, np.empty((0, 16), np.int64)) is None


def test_few_runs_have_no_score_or_no_interval() -> None:
    tau, outcomes, is_in, rows = planted(0, 8, 4.0)
    result = found(models(tau, outcomes, is_in), rows)
    assert np.isfinite(result.value)
    assert np.isnan([result.low, result.high, result.p]).all()
    tau, outcomes, is_in, rows = planted(0, 6, 4.0)
    nothing = mean_score([models(tau, outcomes, is_in)], balanced_half(is_in, rows), rows, np.empty((0, 6), np.int64))
    assert nothing is None


def test_no_ceiling_without_twins_or_above_noise() -> None:
    _, outcomes, _, rows = planted(0, 16, 1.0)
    assert np.isnan(ceiling([outcomes], rows)).all()
    assert np.isnan(ceiling([], rows)).all()
    _, outcomes, _, rows = planted(1, 64, 0.0, twins=2)
    value = ceiling([outcomes], rows)[0]
    assert np.isnan(value) or value < 0.5
