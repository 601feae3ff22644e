"""Tests of `fedmem/attacks/rmia.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest

from fedmem.attacks.rmia import Rmia
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from tests.attacks.membership_helpers import everything
from tests.banks import coins, signals


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


def test_rmia_without_effect_is_fair_when_coins_are_swapped() -> None:
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


def test_rmia_limits_with_large_gamma_and_improbable_examples() -> None:
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
