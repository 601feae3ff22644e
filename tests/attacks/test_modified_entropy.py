"""Tests of `fedmem/attacks/modified_entropy.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.modified_entropy import ModifiedEntropy, thresholds_by_others
from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import Signals, attack_declaration
from tests.attacks.membership_helpers import everything, null_aucs
from tests.banks import coins


def read(entropy: FloatArray, is_in: BoolArray, labels: IntArray) -> Signals:
    return Signals(margin=-entropy, is_in=is_in, labels=labels, signals={"modified_entropy": entropy})


def gain(values: FloatArray, members: BoolArray, threshold: float) -> float:
    return float((values[members] <= threshold).mean() - (values[~members] <= threshold).mean())


def test_thresholds_are_the_best_of_the_other_examples_and_runs() -> None:
    rng = np.random.default_rng(0)
    values, is_in = np.round(rng.normal(size=(8, 4)), 1), coins(8, 4, rng)
    values[0, 1] = np.nan
    found = thresholds_by_others(values)(is_in)
    for r in range(8):
        for j in range(4):
            if np.isnan(values[r, j]):
                assert np.isnan(found[r, j])
                continue
            rest = np.delete(np.delete(values, r, 0), j, 1)
            side = np.delete(np.delete(is_in, r, 0), j, 1)[~np.isnan(rest)]
            rest = rest[~np.isnan(rest)]
            best = max(gain(rest, side, t) for t in np.unique(rest))
            assert gain(rest, side, found[r, j]) == pytest.approx(best)
            assert found[r, j] not in rest or found[r, j] == rest.max()


def test_class_thresholds_find_what_one_threshold_misses() -> None:
    rng = np.random.default_rng(1)
    is_in, labels = coins(16, 40, rng), np.arange(40) % 4
    entropy = 5.0 * labels + rng.normal(size=(16, 40)) + 5 - 2 * is_in
    whole = read(entropy, is_in, labels)
    assert everything(ModifiedEntropy(by_class=False).scores(whole), is_in) < 0.65
    assert everything(ModifiedEntropy().scores(whole), is_in) > 0.85
    np.testing.assert_array_equal(ModifiedEntropy(by_class=False).scores(whole), -entropy)


@pytest.mark.parametrize("runs", [8, 16])
def test_no_memorisation_is_near_chance_from_8_runs(runs: int) -> None:
    """Thresholds that the example itself helped to learn would give .488 with 8 runs, and .493 with 16."""
    rng, scored = np.random.default_rng(2), []
    for _ in range(100):
        is_in = coins(runs, 20, rng)
        entropy = np.exp(rng.normal(size=20) + 0.8 * rng.normal(size=(runs, 20)))
        scored.append((ModifiedEntropy().scores(read(entropy, is_in, np.arange(20) % 4)), is_in))
    mean, error = null_aucs(scored)
    assert error < 0.0035
    assert abs(mean - 0.5) < 2.5 * error
    declared = attack_declaration(ModifiedEntropy())
    assert (declared.min_runs, declared.null_auc, declared.reads_coins) == (8, None, True)


def test_a_class_with_one_example_is_not_scored() -> None:
    is_in = coins(8, 3, np.random.default_rng(3))
    found = ModifiedEntropy().scores(read(np.where(is_in, 0.1, 1.0), is_in, np.array([0, 0, 1])))
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(found[:, :2]).all()
