"""Tests of `fedmem/attacks/nearest_sample.py`; `tests/signals/test_sample_distance.py` has samplers as oracles."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.nearest_sample import NearestSample
from fedmem.contracts.attack import Signals, attack_declaration
from tests.attacks.membership_helpers import null_aucs
from tests.banks import coins


def test_calibration_is_the_mean_over_other_outs() -> None:
    rng = np.random.default_rng(0)
    distance, is_in = rng.random((8, 3)), coins(8, 3, rng)
    signals = Signals(margin=-distance, is_in=is_in, signals={"sample_distance": distance})
    np.testing.assert_array_equal(NearestSample(calibrated=False).scores(signals), -distance)
    found = NearestSample().scores(signals)
    for r in range(8):
        for j in range(3):
            outs = [distance[k, j] for k in range(8) if k != r and not is_in[k, j]]
            assert found[r, j] == pytest.approx(np.mean(outs) - distance[r, j])


def test_broken_models_have_no_score() -> None:
    distance = np.array([[0.1], [np.nan], [0.3]])
    signals = Signals(margin=-distance, is_in=np.zeros((3, 1), bool), signals={"sample_distance": distance})
    assert np.isnan(NearestSample().scores(signals)).ravel().tolist() == [False, True, False]


def test_only_calibration_reads_coins() -> None:
    calibrated, plain = (attack_declaration(NearestSample(calibrated=value)) for value in (True, False))
    assert (calibrated.reads_coins, calibrated.null_auc, calibrated.min_runs) == (True, None, 8)
    assert (plain.reads_coins, plain.null_auc, plain.min_runs) == (False, 0.5, 2)


def test_no_memorisation_is_near_chance() -> None:
    rng, scored = np.random.default_rng(2), []
    for _ in range(60):
        is_in = coins(8, 20, rng)
        distance = rng.random((8, 20)) + rng.random(20)
        signals = Signals(margin=-distance, is_in=is_in, signals={"sample_distance": distance})
        scored.append((NearestSample().scores(signals), is_in))
    mean, error = null_aucs(scored)
    assert abs(mean - 0.5) < 3 * error + 0.004
