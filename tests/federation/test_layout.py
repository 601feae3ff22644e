"""Tests of `fedmem/federation/layout.py`."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from fedmem.federation import build, layout
from fedmem.scenario.scenario import LeaveOut
from fedmem.seeding import stream
from tests.federation.build_helpers import scenario


@pytest.mark.parametrize("runs", [2, 4, 32])
def test_coins_are_balanced_in_every_column(runs: int) -> None:
    coins = layout._flip(runs, 50, stream(0, "coins"))
    assert coins.dtype == np.bool_
    assert coins.sum(0).tolist() == [runs // 2] * 50


def test_coins_of_one_run_are_fair() -> None:
    coins = layout._flip(1, 4000, stream(0, "coins"))
    assert coins.shape == (1, 4000)
    assert stats.binomtest(int(coins.sum()), 4000, 0.5).pvalue > 1e-3
    assert stats.binomtest(int(coins.sum()), 4000, 0.45).pvalue < 1e-3


@pytest.mark.statistical
def test_coins_are_uniform_over_halves_and_independent() -> None:
    coins = layout._flip(4, 60000, stream(0, "coins"))
    halves = [set(pair) for pair in combinations(range(4), 2)]
    counts = np.array([sum(set(np.flatnonzero(column)) == half for column in coins.T) for half in halves])
    assert stats.chisquare(counts).pvalue > 1e-3
    # Two examples agree in a run as often as not; coins that are paired would always agree.
    agree = int((coins[0, ::2] == coins[0, 1::2]).sum())
    assert stats.binomtest(agree, 30000, 0.5).pvalue > 1e-3
    assert stats.binomtest(agree, 30000, 0.48).pvalue < 1e-3


def test_coins_of_clients_are_not_those_of_examples() -> None:
    """An example that were in just where some client is there would show the influence of the client as its own."""
    agree = []
    for seed in range(4):
        audit = build.build(scenario(seed=seed, runs=16, clients=6, leave_out=LeaveOut(clients="all"))).audit
        assert audit.client_in is not None
        agree.append((audit.client_in == audit.is_in[:, :6]).mean())
        assert not (audit.client_in[:, :, None] == audit.is_in[:, None]).all(axis=0).any()
        assert not (audit.client_in[:, :, None] != audit.is_in[:, None]).all(axis=0).any()
    assert np.mean(agree) == pytest.approx(0.5, abs=0.1)
