"""Tests of `fedmem/attacks/watson.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.watson import Watson
from fedmem.contracts.attack import attack_declaration
from tests.attacks.membership_helpers import everything, null_aucs
from tests.banks import coins, signals


def test_score_is_the_mean_loss_of_other_outs_minus_the_loss() -> None:
    rng = np.random.default_rng(0)
    margin, is_in = rng.normal(size=(8, 4)), coins(8, 4, rng)
    found, loss = Watson().scores(signals(margin, is_in)), np.logaddexp(0, -margin)
    for r in range(8):
        for j in range(4):
            outs = [loss[k, j] for k in range(8) if k != r and not is_in[k, j]]
            assert found[r, j] == pytest.approx(np.mean(outs) - loss[r, j])


def test_difficulty_no_longer_hides_membership() -> None:
    rng = np.random.default_rng(1)
    is_in = coins(16, 40, rng)
    margin = 4 * rng.normal(size=40) + 0.3 * rng.normal(size=(16, 40)) + is_in
    assert everything(LossThreshold().scores(signals(margin, is_in)), is_in) < 0.65
    assert everything(Watson().scores(signals(margin, is_in)), is_in) > 0.8


@pytest.mark.parametrize("runs", [8, 16])
def test_no_memorisation_is_near_chance_from_8_runs(runs: int) -> None:
    rng, scored = np.random.default_rng(2), []
    for _ in range(60):
        is_in = coins(runs, 20, rng)
        margin = np.exp(0.8 * rng.normal(size=20)) * rng.normal(size=(runs, 20)) + rng.normal(size=(runs, 1))
        scored.append((Watson().scores(signals(margin, is_in)), is_in))
    mean, error = null_aucs(scored)
    assert abs(mean - 0.5) < 3 * error + 0.004
    declared = attack_declaration(Watson())
    assert (declared.min_runs, declared.null_auc, declared.reads_coins) == (8, None, True)
