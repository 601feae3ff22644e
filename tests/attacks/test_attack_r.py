"""Tests of `fedmem/attacks/attack_r.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.attack_r import AttackR, next_run
from fedmem.contracts.arrays import BoolArray, FloatArray
from tests.attacks.membership_helpers import null_aucs
from tests.banks import coins, signals


def naive(margin: FloatArray, is_in: BoolArray) -> FloatArray:
    runs, m = margin.shape
    scores = np.full(margin.shape, np.nan)
    for r in range(runs):
        for j in range(m):
            others = [k % runs for k in range(r + 1, r + runs)]
            outs = [k for k in others if not is_in[k, j] and not np.isnan(margin[k, j])]
            outs = outs[1:] if is_in[r, j] else outs
            if outs and not np.isnan(margin[r, j]):
                losses = np.logaddexp(0, -margin[outs, j])
                own = np.logaddexp(0, -margin[r, j])
                scores[r, j] = np.mean((losses > own) + 0.5 * (losses == own))
    return scores


def test_score_is_the_rank_among_out_runs() -> None:
    rng = np.random.default_rng(0)
    margin, is_in = np.round(rng.normal(size=(8, 6)), 1), coins(8, 6, rng)
    margin[rng.random(margin.shape) < 0.1] = np.nan
    np.testing.assert_allclose(AttackR().scores(signals(margin, is_in)), naive(margin, is_in))


def test_losses_too_small_to_differ_are_still_ranked() -> None:
    margin = np.array([[900.0], [800.0], [800.5], [1.0]])
    assert AttackR().scores(signals(margin, margin > 850))[0, 0] == 1.0


@pytest.mark.parametrize("runs", [8, 16])
def test_scores_of_both_sides_are_alike_without_memorisation(runs: int) -> None:
    """With one reference more on one side, its best score would be rarer: 1 / 5 against 1 / 4 of 8 runs."""
    rng, scored = np.random.default_rng(1), []
    for _ in range(60):
        is_in = coins(runs, 20, rng)
        margin = np.exp(rng.normal(size=20)) * rng.normal(size=(runs, 20)) + rng.normal(size=(runs, 1)) - 3
        scored.append((AttackR().scores(signals(margin, is_in)), is_in))
    mean, error = null_aucs(scored)
    assert abs(mean - 0.5) < 3 * error
    tops = [np.mean([(s[c == side] == 1).mean() for s, c in scored]) for side in (True, False)]
    assert tops == pytest.approx([2 / runs] * 2, abs=0.012)


def test_next_run_is_cyclic() -> None:
    rng = np.random.default_rng(2)
    chosen = rng.random((7, 5)) < 0.4
    chosen[:, 0] = False
    for j in range(5):
        for r in range(7):
            after = [k % 7 for k in range(r + 1, r + 8) if chosen[k % 7, j]]
            assert next_run(chosen)[r, j] == (after[0] if after else -1)
