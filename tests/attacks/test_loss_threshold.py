"""Tests of `fedmem/attacks/loss_threshold.py`."""

from __future__ import annotations

import math
from math import log1p

import numpy as np

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from tests.attacks.membership_helpers import everything
from tests.banks import coins, signals


def test_loss_threshold_is_the_negative_loss() -> None:
    margin = np.array([[0.0, 3.0, -800.0, np.nan, 40.0]])
    scores = LossThreshold().scores(signals(margin, np.zeros_like(margin, bool)))
    np.testing.assert_allclose(scores, [[-math.log(2), -log1p(math.exp(-3)), -800.0, np.nan, -math.exp(-40)]])


def test_loss_threshold_misses_what_lira_finds() -> None:
    rng = np.random.default_rng(7)
    is_in = coins(16, 60, rng)
    margin = 20 * rng.normal(size=60) + rng.normal(size=(16, 60)) + 2 * is_in
    assert everything(Lira().scores(signals(margin, is_in)), is_in) > 0.85
    assert everything(LossThreshold().scores(signals(margin, is_in)), is_in) < 0.6
