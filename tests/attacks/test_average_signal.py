"""Tests of `fedmem/attacks/average_signal.py`."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from fedmem.attacks.average_signal import AverageSignal
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.contracts.attack import Signals
from tests.attacks.membership_helpers import everything
from tests.attacks.series_helpers import one_federation_each
from tests.banks import coins, signals

Name = Literal["loss", "update_alignment", "update_descent", "grad_norm"]


@pytest.mark.parametrize(
    ("name", "sign"), [("loss", -1), ("update_alignment", 1), ("update_descent", 1), ("grad_norm", -1)]
)
def test_the_sign_is_that_of_training_on_an_example(name: Name, sign: int) -> None:
    rng = np.random.default_rng(0)
    is_in = coins(10, 60, rng)
    given = one_federation_each(is_in, rng, name=name, rounds=9, shift=sign * 2.0)
    attack = AverageSignal(signal=name)
    assert attack.reads_series == (name,)
    np.testing.assert_allclose(attack.scores(given), sign * given.series[name].mean(0))
    assert everything(attack.scores(given), is_in) > 0.9


def test_one_round_of_losses_is_the_loss_threshold() -> None:
    rng = np.random.default_rng(1)
    is_in = coins(6, 4, rng)
    given = signals(rng.normal(size=(6, 4)), is_in)
    series = Signals(margin=given.margin, is_in=is_in, series={"loss": given.loss[None]})
    np.testing.assert_array_equal(AverageSignal().scores(series), LossThreshold().scores(given))


def test_only_rounds_with_a_value_count() -> None:
    rng = np.random.default_rng(2)
    is_in = coins(6, 4, rng)
    given = one_federation_each(is_in, rng, rounds=3)
    away = np.insert(given.series["loss"], 1, np.nan, axis=0)
    again = Signals(margin=given.margin, is_in=is_in, series={"loss": away})
    np.testing.assert_array_equal(AverageSignal().scores(again), AverageSignal().scores(given))
    never = Signals(margin=given.margin, is_in=is_in, series={"loss": np.full_like(away, np.nan)})
    assert np.isnan(AverageSignal().scores(never)).all()
    unseen = Signals(margin=np.full_like(given.margin, np.nan), is_in=is_in, series=given.series)
    assert np.isnan(AverageSignal().scores(unseen)).all()
