"""Tests of `fedmem/estimation/client_agreement.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.estimation.client_agreement import ClientAgreement, client_agreement, crossed_correlation
from fedmem.estimation.rank_agreement import Halves
from tests.banks import coins

RUNS, CLIENTS = 32, 12


def bank(
    rng: np.random.Generator, worth: FloatArray, noise: float = 1.0, shared: float = 0.0
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Values in runs, utilities and coins: the utility is the worth of those present, plus noise of the run."""
    client_in = coins(RUNS, len(worth), rng)
    of_run = noise * rng.normal(size=RUNS)
    utility = client_in @ worth + of_run
    # with `shared`, the noise of a run is part of all values in this run, as it is where values sum to the utility
    values = shared * (utility - utility.mean())[:, None] + 0.3 * rng.normal(size=client_in.shape)
    return np.where(client_in, values, np.nan), utility, client_in


def agreement(values: FloatArray, utility: FloatArray, client_in: BoolArray, halvings: int = 20) -> ClientAgreement:
    found = client_agreement(values, utility, client_in, np.random.default_rng(5), halvings=halvings)
    assert found is not None
    return found


def test_values_that_are_right_agree() -> None:
    rng = np.random.default_rng(0)
    worth = np.linspace(-2, 2, CLIENTS)
    values, utility, client_in = bank(rng, worth, noise=0.3)
    found = agreement(values + worth, utility, client_in)
    assert found.n == CLIENTS
    assert found.split > 0.6
    assert found.low < found.split < found.high <= 1
    assert found.ranks.p < 0.01
    assert found.ranks.corrected >= found.split
    opposite = agreement(values - worth, utility, client_in)
    assert opposite.split < -0.6


def test_shared_noise_of_runs_alone_is_no_agreement() -> None:
    """Without splitting it would be: this is why the runs are split."""
    splits, naive, p = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values, utility, client_in = bank(rng, np.zeros(CLIENTS), shared=1.0)
        found = agreement(values, utility, client_in, halvings=6)
        splits.append(found.split)
        p.append(found.ranks.p)
        means = np.array([[np.nanmean(values, axis=0)]] * 2)
        gain = np.array([[[utility[c].mean() - utility[~c].mean() for c in client_in.T]]] * 2)
        naive.append(crossed_correlation(means, gain))
    assert abs(np.mean(splits)) < 0.08
    assert np.mean(naive) > 0.8
    assert 0.0 <= np.mean(np.array(p) <= 0.05) <= 0.15


def test_a_measure_from_the_same_half_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails where the two halves are not crossed."""
    rng = np.random.default_rng(1)
    values, utility, client_in = bank(rng, np.zeros(CLIENTS), shared=1.0)

    means = Halves.means

    def from_the_other_half(halves: Any, values: FloatArray, variant: Any) -> FloatArray:
        both = means(halves, values, variant)
        return both[::-1] if variant == "gain" else both

    crossed = agreement(values, utility, client_in).split
    monkeypatch.setattr(Halves, "means", from_the_other_half)
    assert agreement(values, utility, client_in).split > crossed + 0.4


def test_only_clients_in_and_out_on_both_sides_count() -> None:
    rng = np.random.default_rng(2)
    values, utility, client_in = bank(rng, np.linspace(-1, 1, CLIENTS))
    client_in[:, 3] = True
    assert agreement(np.where(client_in, 1.0, np.nan), utility, client_in).n == CLIENTS - 1
    few = client_in[:, :3]
    assert client_agreement(values[:, :3], utility, few, rng) is None
    assert client_agreement(np.full_like(values, np.nan), utility, client_in, rng) is None


def test_runs_that_have_diverged_do_not_count() -> None:
    rng = np.random.default_rng(3)
    worth = np.linspace(-2, 2, CLIENTS)
    values, utility, client_in = bank(rng, worth, noise=0.3)
    utility[4], values[4] = np.nan, np.nan
    assert agreement(values + worth, utility, client_in).split > 0.6


def test_equal_values_have_no_order() -> None:
    _, utility, client_in = bank(np.random.default_rng(4), np.zeros(CLIENTS))
    found = agreement(np.where(client_in, 1.0, np.nan), utility, client_in)
    assert found.split == 0
    assert np.isnan([found.low, found.high, found.ranks.corrected]).all()
    assert found.ranks.p == 1
