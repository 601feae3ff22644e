"""Tests of `fedmem/federation/coin_draws.py`."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from fedmem.errors import ComponentError
from fedmem.federation import build
from fedmem.federation.coin_draws import beta_quantiles, draw_from_strata, draw_one_of, draw_rates, flip
from fedmem.seeding import stream
from tests.federation.build_helpers import scenario
from tests.tiny import tiny


@pytest.mark.parametrize("runs", [2, 4, 32])
def test_coins_are_balanced_in_every_column(runs: int) -> None:
    coins = flip(runs, 50, stream(0, "coins"))
    assert coins.dtype == np.bool_
    assert coins.sum(0).tolist() == [runs // 2] * 50


def test_coins_of_one_run_are_fair() -> None:
    coins = flip(1, 4000, stream(0, "coins"))
    assert coins.shape == (1, 4000)
    assert stats.binomtest(int(coins.sum()), 4000, 0.5).pvalue > 1e-3
    assert stats.binomtest(int(coins.sum()), 4000, 0.45).pvalue < 1e-3


@pytest.mark.statistical
def test_coins_are_uniform_over_halves_and_independent() -> None:
    coins = flip(4, 60000, stream(0, "coins"))
    halves = [set(pair) for pair in combinations(range(4), 2)]
    counts = np.array([sum(set(np.flatnonzero(column)) == half for column in coins.T) for half in halves])
    assert stats.chisquare(counts).pvalue > 1e-3
    # Two examples agree in a run as often as not; coins that are paired would always agree.
    agree = int((coins[0, ::2] == coins[0, 1::2]).sum())
    assert stats.binomtest(agree, 30000, 0.5).pvalue > 1e-3
    assert stats.binomtest(agree, 30000, 0.48).pvalue < 1e-3


def test_a_rate_is_an_exact_number_of_runs() -> None:
    for runs, rate, ins in ((8, 0.7, 6), (5, 0.5, 2), (10, 0.1, 1)):
        assert set(flip(runs, 40, stream(0, "coins"), rate).sum(0).tolist()) == {ins}


def test_rates_have_one_run_in_each_stratum() -> None:
    for count in (1, 5, 64):
        places = np.sort(draw_from_strata(count, np.random.default_rng(1)) * count)
        assert np.floor(places).tolist() == list(range(count))


@pytest.mark.statistical
def test_the_rate_of_each_run_is_uniform() -> None:
    rates = np.stack([draw_from_strata(4, np.random.default_rng(seed)) for seed in range(4000)])
    assert min(stats.kstest(column, "uniform").pvalue for column in rates.T) > 1e-3


def test_a_large_alpha_means_few_examples() -> None:
    uniform = (np.arange(4000) + 0.5) / 4000
    assert beta_quantiles(uniform, 16.0, 1.0).mean() == pytest.approx(1 / 17, abs=1e-4)
    assert beta_quantiles(uniform, 1.0, 16.0).mean() == pytest.approx(16 / 17, abs=1e-4)
    np.testing.assert_allclose(beta_quantiles(uniform, 1.0, 1.0), uniform)


def test_coins_follow_the_rates_of_their_runs() -> None:
    audit = build.build(scenario(runs=12, coins={"law": "owen"})).audit
    assert audit.inclusion_rates is not None
    shares = audit.is_in.mean(1)
    sd = np.sqrt(audit.inclusion_rates * (1 - audit.inclusion_rates) / len(audit))
    assert (np.abs(shares - audit.inclusion_rates) <= 4.5 * sd + 1e-9).all()
    assert (audit.is_in.sum(0) != 6).any(), "no longer balanced"


def test_twins_share_rates_and_coins() -> None:
    alone, twins = (scenario(runs=runs, twins=runs // 6, coins={"law": "owen"}) for runs in (6, 12))
    rates, of_alone = draw_rates(twins), draw_rates(alone)
    assert rates is not None
    assert of_alone is not None
    np.testing.assert_array_equal(rates, np.tile(of_alone, 2))
    coins = build.build(twins).audit.is_in
    np.testing.assert_array_equal(coins, np.tile(build.build(alone).audit.is_in, (2, 1)))


def test_balanced_coins_are_as_without_the_field() -> None:
    named = build.build(scenario(runs=8, coins={"law": "balanced"})).audit
    np.testing.assert_array_equal(named.is_in, build.build(scenario(runs=8)).audit.is_in)
    assert named.inclusion_rates is None


def test_one_example_of_each_owner_is_in() -> None:
    owner = np.array([0, 2, 0, 2, 0, 2, 2])
    coins = draw_one_of(tiny(runs=10, estimators=[]), owner, is_shared=False)
    for client in (0, 2):
        assert (coins[:, owner == client].sum(axis=1) == 1).all()
        assert np.ptp(coins[:, owner == client].sum(axis=0)) <= 1
    assert not np.array_equal(coins[:, 0], coins[:, 1])


@pytest.mark.parametrize(
    ("owner", "is_shared", "message"),
    [([0, 0], True, "no owning client"), ([-1, -1], False, "no owning client"), ([0, 1, 1], False, "at least two"),
     ([], False, "at least two"), ([0] * 11, False, "no more than")],
)  # fmt: skip
def test_one_of_needs_several_examples_of_one_owner(owner: list[int], is_shared: bool, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        draw_one_of(tiny(runs=10, estimators=[]), np.array(owner, dtype=np.int64), is_shared=is_shared)
