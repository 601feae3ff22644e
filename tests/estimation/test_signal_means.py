"""Tests of `fedmem/estimation/signal_means.py`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate
from fedmem.contracts.measurement import NO_LABELS, Labels
from fedmem.estimation.signal_means import SignalMeans, with_signals
from fedmem.estimators.memorisation import Memorisation
from fedmem.signals.el2n import El2n
from tests.banks import coins, make_view
from tests.narrowing import present

RUNS, EXAMPLES = 16, 24


def estimates(
    values: FloatArray, is_in: BoolArray, round_number: int | None = None
) -> dict[tuple[str, Labels], Estimate]:
    view = make_view(np.zeros((RUNS, EXAMPLES)), is_in, round_number=round_number, draws=200)
    found = SignalMeans(signal=El2n()).estimate(replace(view, signals={"el2n": values[:, None]}))
    return {(estimate.metric, estimate.labels): estimate for estimate in found}


def test_three_means_of_a_planted_signal() -> None:
    rng = np.random.default_rng(2)
    is_in = coins(RUNS, EXAMPLES, rng)
    values = 0.9 + 0.05 * rng.standard_normal((RUNS, EXAMPLES)) - 0.4 * is_in
    found = estimates(values, is_in)
    inside, outside = values[is_in].mean(), values[~is_in].mean()
    assert found["el2n", NO_LABELS].value == pytest.approx(inside)
    assert found["el2n", Labels.of(statistic="out")].value == pytest.approx(outside)
    gain = found["el2n_gain", NO_LABELS]
    assert gain.value == pytest.approx(inside - outside)
    assert gain.p < 0.02
    assert gain.bounds == (-math.sqrt(2), math.sqrt(2))
    assert math.isnan(found["el2n", NO_LABELS].null)


def test_a_gain_of_a_signal_has_no_retention() -> None:
    rng = np.random.default_rng(5)
    is_in = coins(RUNS, EXAMPLES, rng)
    assert estimates((0.9 - 0.4 * is_in).astype(np.float64), is_in)["el2n_gain", NO_LABELS].signed


def test_shuffled_coins_give_no_gain() -> None:
    rng = np.random.default_rng(3)
    seen = []
    for _ in range(40):
        values = rng.random((RUNS, EXAMPLES))
        seen.append(estimates(values, coins(RUNS, EXAMPLES, rng))["el2n_gain", NO_LABELS].p)
    assert np.mean(np.array(seen) <= 0.05) <= 0.15
    assert abs(np.mean(seen) - 0.5) < 0.2


def test_examples_without_a_side_are_left_out_of_all_means() -> None:
    rng = np.random.default_rng(4)
    is_in = coins(RUNS, EXAMPLES, rng)
    values = rng.random((RUNS, EXAMPLES))
    values[is_in[:, 0], 0] = np.nan
    values[3, 5] = np.inf
    found = estimates(values, is_in)
    assert {estimate.n for estimate in found.values()} == {EXAMPLES - 1}
    assert all(0 not in present(estimate.examples) for estimate in found.values())
    assert all(np.isfinite(estimate.value) for estimate in found.values())


def test_estimators_come_before_signals() -> None:
    memorisation = Memorisation()
    assert with_signals([memorisation], [El2n()]) == [memorisation, SignalMeans(signal=El2n())]
