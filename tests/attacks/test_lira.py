"""Tests of `fedmem/attacks/lira.py`."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from scipy.stats import norm

from fedmem.attacks.lira import Lira
from fedmem.contracts.arrays import BoolArray, FloatArray
from tests.attacks.membership_helpers import everything
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
