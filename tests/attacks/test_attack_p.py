"""Tests of `fedmem/attacks/attack_p.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.attacks.attack_p import AttackP
from fedmem.contracts.attack import Signals
from tests.banks import coins, signals


def test_score_is_exactly_uniform_on_its_grid_when_exchangeable() -> None:
    """Each of n + 1 values in turn is the audit example, and the others are the population."""
    values = np.random.default_rng(0).permutation(np.arange(12.0))
    scores = []
    for place, value in enumerate(values):
        population = np.logaddexp(0, -np.delete(values, place))[None]
        scores.append(AttackP().scores(signals(np.array([[value]]), np.ones((1, 1), bool), population)).item())
    np.testing.assert_allclose(np.sort(scores), np.arange(12) / 12)
    # a false positive rate of k / (n + 1) at the threshold 1 - k / (n + 1)
    assert [sum(score >= 1 - k / 12 - 1e-9 for score in scores) for k in range(1, 12)] == list(range(1, 12))


def test_score_counts_larger_losses_of_the_same_run() -> None:
    rng = np.random.default_rng(1)
    margin, population = rng.normal(size=(4, 6)), np.logaddexp(0, -rng.normal(size=(4, 30)))
    found = AttackP().scores(signals(margin, coins(4, 6, rng), population))
    for r in range(4):
        for j in range(6):
            assert found[r, j] == (population[r] > np.logaddexp(0, -margin[r, j])).sum() / 31


def test_class_thresholds_use_rows_of_the_same_label_only() -> None:
    rng = np.random.default_rng(2)
    margin, population = rng.normal(size=(4, 6)), np.logaddexp(0, -rng.normal(size=(4, 30)))
    labels, others = np.array([0, 1, 2, 0, 1, 7]), np.arange(30) % 3
    whole = replace(signals(margin, coins(4, 6, rng), population), labels=labels, population_labels=others)
    found = AttackP(by_class=True).scores(whole)
    for j, label in enumerate(labels):
        rows = population[:, others == label]
        expected = (rows > np.logaddexp(0, -margin[:, j])[:, None]).sum(1) / (rows.shape[1] + 1)
        np.testing.assert_array_equal(found[:, j], expected)
    assert (found[:, 5] == 0).all(), "the population lacks this label"
    assert not np.array_equal(found, AttackP().scores(whole))


def test_ties_speak_against_membership() -> None:
    same = np.full((1, 9), np.log(2))
    assert AttackP().scores(signals(np.zeros((1, 2)), np.ones((1, 2), bool), same)).tolist() == [[0.0, 0.0]]


def test_each_model_has_its_own_population() -> None:
    rng = np.random.default_rng(3)
    margin, is_in = rng.normal(size=(4, 3)), coins(4, 3, rng)
    parts = [np.logaddexp(0, -rng.normal(size=(4, 20))) for _ in range(2)]
    both = Signals(margin=margin, is_in=is_in, population=np.stack(parts), model=np.array([1, -1, 0]))
    found = AttackP().scores(both)
    for column, part in ((0, 1), (2, 0)):
        expected = AttackP().scores(signals(margin, is_in, parts[part]))[:, column]
        np.testing.assert_array_equal(found[:, column], expected)
    assert np.isnan(found[:, 1]).all()


def test_without_a_population_nothing_is_scored() -> None:
    margin = np.zeros((2, 2))
    assert np.isnan(AttackP().scores(Signals(margin=margin, is_in=margin > 0))).all()
    assert np.isnan(AttackP().scores(signals(margin, margin > 0, np.full((2, 5), np.nan)))).all()


def test_labels_are_declared_for_class_thresholds_only() -> None:
    assert AttackP().reads == ()
    assert AttackP(by_class=True).reads == ("labels",)
