"""Tests of `fedmem/attacks/label_only.py`."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from fedmem.attacks.gap import Gap
from fedmem.attacks.label_only import LabelOnly
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals, attack_declaration
from tests.attacks.membership_helpers import everything
from tests.banks import coins


def linear(distance: FloatArray, is_in: BoolArray, draws: int, sigma: float = 1.0) -> Signals:
    """What noisy copies say of a linear boundary at these distances: right with probability Φ(distance / σ)."""
    rng = np.random.default_rng(4)
    share = rng.binomial(draws, norm.cdf(distance / sigma)) / draws
    right = (distance > 0).astype(np.float64)
    return Signals(margin=distance, is_in=is_in, correct=right, signals={"noise_robustness": share})


def test_score_orders_by_the_distance_from_a_linear_boundary() -> None:
    distance = np.linspace(-2, 2, 9)[None]
    whole = linear(distance, distance > 0, draws=4000)
    found = LabelOnly().scores(whole)
    np.testing.assert_allclose(found, norm.cdf(distance), atol=0.03)
    assert (np.diff(found[0]) > 0).all()


def test_robustness_finds_more_than_the_gap() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(16, 30, rng)
    whole = linear(1.5 + 0.5 * rng.normal(size=(16, 30)) + is_in, is_in, draws=20)
    assert everything(LabelOnly().scores(whole), is_in) > 0.7
    assert everything(Gap().scores(whole), is_in) < 0.55


def test_calibration_removes_difficulty() -> None:
    rng = np.random.default_rng(1)
    is_in = coins(16, 30, rng)
    whole = linear(1.5 * rng.normal(size=30) + 0.2 * rng.normal(size=(16, 30)) + 0.5 * is_in, is_in, draws=100)
    plain, calibrated = (everything(LabelOnly(calibrate=c).scores(whole), is_in) for c in (False, True))
    assert plain < 0.65
    assert calibrated > 0.85


def test_declarations_follow_calibration() -> None:
    plain, calibrated = (attack_declaration(LabelOnly(calibrate=c)) for c in (False, True))
    assert (plain.min_runs, plain.null_auc, plain.reads_coins) == (2, 0.5, False)
    assert (calibrated.min_runs, calibrated.null_auc, calibrated.reads_coins) == (8, None, True)
    assert plain.reads_signals == ("noise_robustness",)
