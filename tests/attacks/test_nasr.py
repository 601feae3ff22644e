"""Tests of `fedmem/attacks/nasr.py`."""

from __future__ import annotations

import numpy as np

from fedmem.attacks.nasr import Nasr
from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.attack import Signals
from tests.attacks.membership_helpers import everything
from tests.banks import coins


def made_signals(is_in: BoolArray, rng: np.random.Generator, **shifts: float) -> Signals:
    shape = (4, *is_in.shape)
    series = {name: rng.normal(size=shape) + shifts.get(name, 0.0) * is_in for name in Nasr.reads_series}
    series["last_layer_norm"] = np.exp(series["last_layer_norm"])
    return Signals(margin=series["margin"][-1], is_in=is_in, series=series)


def test_each_quantity_is_read() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(8, 120, rng)
    assert abs(everything(Nasr().scores(made_signals(is_in, rng)), is_in) - 0.5) < 0.06
    for name in Nasr.reads_series:
        for shift in (-1.0, 1.0):  # the sign is learnt
            assert everything(Nasr().scores(made_signals(is_in, rng, **{name: shift})), is_in) > 0.7


def test_scores_under_coins_are_those_of_the_attack() -> None:
    rng = np.random.default_rng(1)
    is_in, again = coins(8, 6, rng), coins(8, 6, rng)
    signals = made_signals(is_in, rng, loss=1.0)
    for attack in (Nasr(), Nasr(trained_on="other_runs")):
        dealt = Signals(margin=signals.margin, is_in=again, series=signals.series)
        np.testing.assert_array_equal(attack.scores_under_coins(signals)(again), attack.scores(dealt))
