"""Tests of `fedmem/estimation/rank_agreement.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.estimation.rank_agreement import (
    Halves,
    RankAgreement,
    Ranks,
    Resampling,
    Shuffles,
    difference,
    rank_agreement,
)
from tests.banks import coins
from tests.estimation.plain_rank_agreement import plain_agreement, plain_draws, plain_student


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


def compare(
    first: FloatArray, second: FloatArray, owner: IntArray, rng: np.random.Generator, **more: int
) -> RankAgreement:
    is_usable = ~(np.isnan(first).any((0, 1)) | np.isnan(second).any((0, 1)))
    resampling = Resampling.draw(owner, rng, **more)
    one, two = (Ranks.of(part[:, :, is_usable], resampling.weights[is_usable]) for part in (first, second))
    return rank_agreement(one, two, resampling.shuffles, resampling.clusters[is_usable])


def judge(
    memory: FloatArray, proxy: FloatArray, is_in: BoolArray, seed: int = 1, halvings: int = 10, **more: int
) -> RankAgreement:
    rng = np.random.default_rng(seed)
    halves = Halves.draw(is_in, halvings, rng)
    owner = np.arange(is_in.shape[1])
    return compare(halves.means(memory, "gain"), halves.means(proxy, "gain"), owner, rng, **more)


def gains(memory: FloatArray, proxy: FloatArray, is_in: BoolArray, halvings: int = 3) -> tuple[FloatArray, FloatArray]:
    halves = Halves.draw(is_in, halvings, np.random.default_rng(4))
    return halves.means(memory, "gain"), halves.means(proxy, "gain")


def test_shared_noise_is_no_agreement() -> None:
    found = [judge(*planted(0.0, seed=seed), draws=2, shuffles=99) for seed in range(20)]
    assert abs(np.mean([one.split for one in found])) < 0.03
    assert np.mean([one.p <= 0.05 for one in found]) <= 0.2
    memory, proxy, is_in = planted(0.0)
    naive = [np.where(is_in, v, np.nan) for v in (memory, proxy)]
    from_same = [
        np.nanmean(v, 0) - np.nanmean(np.where(is_in, np.nan, w), 0)
        for v, w in zip(naive, (memory, proxy), strict=True)
    ]
    assert spearmanr(*from_same).statistic > 0.1, "from the same runs, noise alone makes them agree"


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
    alone = compare(first, second, np.arange(320), np.random.default_rng(2), shuffles=9)
    together = compare(first, second, np.repeat(np.arange(80), 4), np.random.default_rng(2), shuffles=9)
    assert together.high - together.low > 1.3 * (alone.high - alone.low), "copies are no further examples"


@pytest.mark.parametrize("decimals", [6, 0], ids=["no ties", "many ties"])
@pytest.mark.parametrize("owners", [60, 9, 3], ids=["an owner each", "drawn by owner", "few owners"])
def test_fast_ranks_are_those_of_the_plain_version(decimals: int, owners: int) -> None:
    memory, proxy, is_in = planted(0.6, m=60, noise=0.3)
    first, second = (np.round(3 * part, decimals) for part in gains(memory, proxy, is_in))
    resampling = Resampling.draw(np.arange(60) % owners, np.random.default_rng(2), draws=15, shuffles=99)
    one, two = (Ranks.of(part, resampling.weights) for part in (first, second))
    found = rank_agreement(one, two, resampling.shuffles)
    plain = plain_agreement(first, second)
    assert (found.split, found.reliability, found.other_reliability, found.corrected) == pytest.approx(plain, abs=1e-12)
    np.testing.assert_allclose(found.of_draws, plain_draws(first, second, resampling.weights), atol=2e-5)
    assert np.isfinite(found.of_draws).any()


def test_p_is_the_share_of_shuffles_as_extreme() -> None:
    memory, proxy, is_in = planted(0.0, m=25, noise=1.0, seed=3)
    first, second = gains(memory, proxy, is_in)
    shuffles = Shuffles(limit=99, seed=5)
    one, two = (Ranks.of(part, np.ones((25, 1))) for part in (first, second))
    found = rank_agreement(one, two, shuffles)
    (places,) = shuffles.blocks(25)
    observed = plain_student(first, second)
    extreme = [
        abs(plain_student(first, second[:, :, order])) >= abs(observed) - 1e-12 for order in places - 25 * np.arange(25)
    ]
    assert found.p == pytest.approx((1 + sum(extreme)) / 100)


def test_shuffles_go_on_only_where_few_are_as_extreme() -> None:
    memory, proxy, is_in = planted(0.9, m=40, noise=0.1)
    assert judge(memory, proxy, is_in, draws=2, shuffles=5000).p == pytest.approx(1 / 5001)
    unrelated = judge(memory, np.random.default_rng(1).normal(size=memory.shape), is_in, draws=2, shuffles=5000)
    assert unrelated.p * 1000 == pytest.approx(round(unrelated.p * 1000)), "it ends after the first 999"


def test_owners_that_differ_by_chance_are_no_agreement() -> None:
    """Both quantities differ between ten owners, and are not related: as if there were ten examples."""
    rng, owner, found = np.random.default_rng(0), np.repeat(np.arange(10), 8), []
    for _ in range(40):
        first, second = (rng.normal(size=10)[owner] + 0.3 * rng.normal(size=(2, 4, 80)) for _ in range(2))
        found.append(compare(first, second, owner, rng, draws=2, shuffles=199).p)
    # with the squares of single examples about half of them
    assert np.mean(np.array(found) <= 0.05) < 0.2


def test_differences_are_paired() -> None:
    memory, proxy, is_in = planted(0.6, m=80)
    first, second = gains(memory, proxy, is_in)
    resampling = Resampling.draw(np.arange(80), np.random.default_rng(2), shuffles=9)
    one, two = (Ranks.of(part, resampling.weights) for part in (first, second))
    found, turned = (
        rank_agreement(one, other, resampling.shuffles) for other in (two, Ranks.of(-second, resampling.weights))
    )
    assert difference(found, found) == (0.0, 0.0, 0.0), "the same draws"
    gap, low, high = difference(found, turned)
    assert gap == pytest.approx(2 * found.corrected)
    assert low <= gap <= high
    assert difference(found, turned, in_size=True) == pytest.approx((0.0, 0.0, 0.0), abs=1e-5)


@pytest.mark.parametrize("relation", ["noise", "shuffled coins"])
def test_false_alarms_stay_at_their_level(relation: str) -> None:
    """Of 200 banks with memorisation, at most 5 % are significant; 18 is the 99.5 % quantile of that.

    Shuffles of a sum that is not divided by its spread gave 29 with shuffled coins.
    """
    alarms = 0
    for seed in range(200):
        memory, proxy, is_in = planted(0.6, m=40, runs=16, seed=seed)
        rng = np.random.default_rng([seed, 1])
        if relation == "noise":
            found = judge(memory, rng.normal(size=proxy.shape), is_in, draws=2, shuffles=99, halvings=6)
        else:
            found = judge(memory, proxy, coins(16, 40, rng), draws=2, shuffles=99, halvings=6)
        alarms += found.p <= 0.05
    assert alarms <= 18
