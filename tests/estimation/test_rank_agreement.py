"""Tests of `fedmem/estimation/rank_agreement.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.estimation.rank_agreement import Halves, RankAgreement, rank_agreement
from tests.banks import coins


def planted(
    rho: float, *, runs: int = 32, m: int = 200, noise: float = 0.6, seed: int = 0
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Values of memorisation and of a proxy whose noise is shared, with a correlation of true values of about rho."""
    rng = np.random.default_rng(seed)
    is_in = coins(runs, m, rng)
    true = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=m)
    shared = noise * rng.standard_normal((runs, m))
    memory = 0.3 * true[:, 0] * is_in + shared
    proxy = -0.3 * true[:, 1] * is_in - shared  # a loss: small where the probability is large
    return memory, -proxy, is_in


def judge(memory: FloatArray, proxy: FloatArray, is_in: BoolArray, seed: int = 1, **more: int) -> RankAgreement:
    rng = np.random.default_rng(seed)
    halves = Halves.draw(is_in, 10, rng)
    owner = np.arange(is_in.shape[1])
    return rank_agreement(halves.means(memory, "gain"), halves.means(proxy, "gain"), owner, rng, **more)


def test_shared_noise_is_no_agreement() -> None:
    found = [judge(*planted(0.0, seed=seed), draws=2, shuffles=99) for seed in range(20)]
    assert abs(np.mean([one.split for one in found])) < 0.03
    assert np.mean([one.p <= 0.05 for one in found]) <= 0.2
    memory, proxy, is_in = planted(0.0)
    naive = [np.where(is_in, v, np.nan) for v in (memory, proxy)]
    gains = [
        np.nanmean(v, 0) - np.nanmean(np.where(is_in, np.nan, w), 0)
        for v, w in zip(naive, (memory, proxy), strict=True)
    ]
    assert spearmanr(*gains).statistic > 0.1, "from the same runs, noise alone makes them agree"


def test_the_correction_finds_the_correlation_of_true_values() -> None:
    found = [judge(*planted(0.6, seed=seed), draws=40, shuffles=99) for seed in range(12)]
    truth = 6 / np.pi * np.arcsin(0.3)  # Spearman's of a normal pair with correlation 0.6
    assert np.mean([one.corrected for one in found]) == pytest.approx(truth, abs=0.06)
    assert np.mean([one.split for one in found]) < 0.8 * truth, "without the correction it is too small"
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.75
    assert all(one.p <= 0.05 for one in found)


def test_memorisation_agrees_with_itself_from_other_runs() -> None:
    memory, _, is_in = planted(0.0)
    found = judge(memory, memory, is_in, draws=20, shuffles=99)
    assert found.corrected == pytest.approx(1.0)
    assert judge(memory, -memory, is_in, draws=20, shuffles=99).corrected == pytest.approx(-1.0)


def test_noise_and_shuffled_coins_are_undefined() -> None:
    memory, _, is_in = planted(0.0)
    rng = np.random.default_rng(5)
    noise = judge(memory, rng.standard_normal(memory.shape), is_in, draws=2, shuffles=99)
    assert np.isnan(noise.corrected)
    assert noise.p > 0.01
    shuffled = judge(memory, memory, coins(32, 200, rng), draws=2, shuffles=99)
    assert abs(shuffled.reliability) < 0.2
    assert np.isnan(shuffled.corrected)


def test_ties_constants_and_few_examples() -> None:
    memory, _, is_in = planted(0.5, m=30)
    constant = judge(memory, np.ones_like(memory), is_in, draws=2, shuffles=9)
    assert constant.split == 0.0
    assert constant.p == 1.0
    assert np.isnan(constant.corrected)
    few = judge(memory[:, :2], memory[:, :2], is_in[:, :2])
    assert few.n == 2
    assert np.isnan(few.split)


def test_examples_with_too_few_runs_in_a_half_do_not_count() -> None:
    memory, proxy, is_in = planted(0.5, runs=8, m=40)
    memory[is_in[:, 0], 0] = np.nan
    found = judge(memory, proxy, is_in, draws=2, shuffles=9)
    assert found.n < 40


def test_halves_do_not_overlap_and_cover_all_runs() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(10, 3, rng)
    halves = Halves.draw(is_in, 7, rng)
    assert halves.first.sum(axis=1).tolist() == [5] * 7
    values = np.arange(30.0).reshape(10, 3)
    means = halves.means(values, "in")
    for h in range(7):
        for half, members in enumerate((halves.first[h], ~halves.first[h])):
            for j in range(3):
                chosen = values[members & is_in[:, j], j]
                expected = chosen.mean() if len(chosen) >= 2 else np.nan
                np.testing.assert_allclose(means[half, h, j], expected)


def test_owners_are_drawn_together() -> None:
    memory, proxy, is_in = planted(0.6, m=80)
    rng = np.random.default_rng(1)
    halves = Halves.draw(is_in, 5, rng)
    pair = halves.means(memory, "gain"), halves.means(proxy, "gain")
    first, second = (np.repeat(part, 4, axis=2) for part in pair)
    alone = rank_agreement(first, second, np.arange(320), np.random.default_rng(2), shuffles=9)
    together = rank_agreement(first, second, np.repeat(np.arange(80), 4), np.random.default_rng(2), shuffles=9)
    assert together.high - together.low > 1.3 * (alone.high - alone.low), "copies are no further examples"
