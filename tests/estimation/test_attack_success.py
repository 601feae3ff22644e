"""Tests of `fedmem/estimation/attack_success.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from scipy.stats import norm

from fedmem.attacks.attack_r import AttackR
from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals
from fedmem.estimation.attack_success import SUB_SPLITS, HeldOutScores, auc_by_example, shares_beaten
from tests.banks import coins, signals

RUNS = 16


@dataclass(frozen=True)
class Recorder:
    """Scores a run by its margin, and remembers which runs it was shown."""

    knows: ClassVar[str] = "everything"
    shown: list[list[float]]

    def scores(self, given: Signals) -> FloatArray:
        self.shown.append(given.margin[:, 0].tolist())
        return given.margin


def planted(effect: float, *, m: int = 40, seed: int = 0) -> Signals:
    rng = np.random.default_rng(seed)
    is_in = coins(RUNS, m, rng)
    return signals(effect * is_in + rng.normal(size=(RUNS, m)), is_in)


def test_auc_of_an_example_is_the_share_of_its_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, is_in = np.round(rng.normal(size=(9, 30)), 1), rng.random((9, 30)) < 0.5
    scores[rng.random((9, 30)) < 0.1] = np.nan
    is_in[:, 0] = True
    found = auc_by_example(scores, is_in)
    for j in range(30):
        pairs = [
            0.5 * (1 + np.sign(scores[r, j] - scores[s, j]))
            for r in range(9)
            for s in range(9)
            if is_in[r, j] and not is_in[s, j] and not np.isnan(scores[r, j] + scores[s, j])
        ]
        np.testing.assert_allclose(found[j], np.mean(pairs) if pairs else np.nan)
    assert np.isnan(found[0])
    ins = np.where(is_in, shares_beaten(scores, is_in), np.nan)[:, 1:]
    np.testing.assert_allclose(np.nanmean(ins, axis=0), found[1:])


def test_a_target_is_scored_from_its_shadows_alone() -> None:
    recorder = Recorder([])
    given = planted(0.0)
    scorer = HeldOutScores(attack=recorder, signals=[given])
    scores = scorer.score(np.array([3, 5]), np.array([0, 8, 9]))
    np.testing.assert_array_equal(scores, given.margin[[3, 5]])
    # once with the coin of the target, and once without
    assert recorder.shown == [given.margin[[0, 8, 9, target], 0].tolist() for target in (3, 5)] * 2


def test_infinite_scores_are_above_missing_ones() -> None:
    """Ranked as equal to a missing score, one of infinity beats more runs than there are."""
    scores = np.array([[np.inf], [0.0], [np.nan], [np.inf], [np.nan]])
    is_in = np.array([[True], [False], [False], [False], [True]])
    assert auc_by_example(scores, is_in).tolist() == [0.75]


def test_own_coin_of_a_target_does_not_matter() -> None:
    """Attack R leaves a reference out where the target is in: a coarser scale, seen without any memorisation."""
    given = planted(0.0)
    shadows, targets = np.arange(8), np.arange(8, 16)
    flipped = replace(given, is_in=np.where(np.arange(16)[:, None] < 8, given.is_in, ~given.is_in))
    first, other = (HeldOutScores(attack=AttackR(), signals=[one]).score(targets, shadows) for one in (given, flipped))
    np.testing.assert_array_equal(first, other)


@dataclass(frozen=True)
class OtherMembers:
    """Scores an example by how many others are in the run."""

    knows: ClassVar[str] = "members among other examples"

    def scores(self, given: Signals) -> FloatArray:
        return np.asarray(given.is_in.sum(1, keepdims=True) - given.is_in, dtype=np.float64)


def test_coins_of_other_examples_are_shown() -> None:
    given = planted(0.0)
    scorer = HeldOutScores(attack=OtherMembers(), signals=[given])
    expected = OtherMembers().scores(given)[8:]
    np.testing.assert_array_equal(scorer.score(np.arange(8, 16), np.arange(8)), expected)


def test_the_average_over_models_is_scored() -> None:
    one, other = planted(0.0), planted(0.0, seed=1)
    both = HeldOutScores(attack=LossThreshold(), signals=[one, other])
    expected = -(one.loss + other.loss)[:4] / 2
    np.testing.assert_allclose(both.score(np.arange(4), np.arange(8, 12)), expected)


def test_success_without_memorisation_is_one_half() -> None:
    """Leaving each run out in its turn gives less, since that moves the means of its own side."""
    held_out, left_out = [], []
    for seed in range(12):
        given = planted(0.0, seed=seed)
        scorer = HeldOutScores(attack=Lira(), signals=[given])
        held_out.append(scorer.success(np.arange(8), np.arange(8, 16)))
        left_out.append(auc_by_example(Lira().scores(given), given.is_in))
    error = np.nanstd(held_out) / np.sqrt(np.size(held_out))
    assert abs(np.nanmean(held_out) - 0.5) < 3 * error
    assert np.mean(left_out) < 0.5 - 5 * error


@pytest.mark.parametrize("effect", [1.0, -1.5], ids=["raised", "lowered"])
def test_success_is_that_of_the_known_truth(effect: float) -> None:
    """An attack that knows the direction has Φ(|effect| / √2), whichever sign the effect has."""
    found = []
    for seed in range(6):
        scorer = HeldOutScores(attack=Lira(), signals=[planted(effect, seed=seed)])
        runs = np.random.default_rng(seed).permutation(RUNS)
        # few targets, and many shadows, so that nearly all directions are right
        found.append(scorer.success(runs[:4], runs[4:]))
    wrong = norm.cdf(-abs(effect) / np.sqrt(2 / 6))
    truth = norm.cdf(abs(effect) / np.sqrt(2))
    assert np.nanmean(found) == pytest.approx(truth - wrong * (2 * truth - 1), abs=0.04)


def test_success_within_reads_no_other_run() -> None:
    given = planted(1.0)
    runs = np.array([0, 2, 3, 5, 8, 9, 11, 14])
    changed = given.margin.copy()
    changed[np.setdiff1d(np.arange(RUNS), runs)] = 99.0
    both = [
        HeldOutScores(attack=Lira(), signals=[signals(margin, given.is_in)]).success_within(
            runs, np.random.default_rng(1)
        )
        for margin in (given.margin, changed)
    ]
    np.testing.assert_array_equal(both[0], both[1])
    assert np.nanmean(both[0]) > 0.6


def test_twins_are_shadows_or_targets_together() -> None:
    """A shadow run with the coins of its target would tell them."""
    recorder = Recorder([])
    is_in = np.repeat(coins(8, 3, np.random.default_rng(0)), 2, axis=0)
    margin = np.repeat(np.arange(8.0), 2)[:, None] + np.zeros((16, 3))
    scorer = HeldOutScores(attack=recorder, signals=[signals(margin, is_in)], coin_rows=np.repeat(np.arange(8), 2))
    scorer.success_within(np.arange(12), np.random.default_rng(1))
    assert len(recorder.shown) == 2 * SUB_SPLITS * 12  # each with the coin of the target and without
    assert all(target not in shadows for *shadows, target in recorder.shown)
