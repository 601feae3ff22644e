"""Tests of `fedmem/estimation/shadow_runs.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.estimation.shadow_runs import folds_of, identify, reconstruct
from fedmem.estimation.statistics import clopper_pearson


def bank(m: int, each: int, distance: float, rng: np.random.Generator, d: int = 3) -> tuple[FloatArray, IntArray]:
    """Features of m candidates with unit normal noise and means on one line, this far apart."""
    classes = rng.permutation(np.repeat(np.arange(m), each))
    features = rng.normal(size=(len(classes), d))
    features[:, 0] += distance * classes
    return features, classes


def test_two_normal_candidates_have_their_closed_form() -> None:
    """The most probable of two candidates is right with probability Φ(d / 2)."""
    rng = np.random.default_rng(0)
    features, classes = bank(2, 400, 2.0, rng)
    assert identify(features, classes, 5, rng).mean() == pytest.approx(ndtr(1.0), abs=0.04)


def test_correlated_noise_is_whitened() -> None:
    """Features are z + noise in one direction that is a hundred times as large as the gap of the means."""
    rng = np.random.default_rng(1)
    features, classes = bank(3, 40, 6.0, rng)
    features = np.hstack([features, np.zeros((len(features), 1))]) + 600 * rng.normal(size=(len(features), 1)) * [
        1, 0, 0, 1,
    ]  # fmt: skip
    assert identify(features, classes, 5, rng).mean() > 0.9


def test_without_noise_every_candidate_is_identified() -> None:
    classes = np.tile(np.arange(4), 3)
    features = np.eye(4)[classes]
    assert identify(features, classes, 3, np.random.default_rng(0)).all()
    assert not identify(np.ones((12, 4)), classes, 3, np.random.default_rng(0)).any(), "ties identify nothing"


def test_permuted_labels_give_chance_and_the_interval_holds() -> None:
    rng = np.random.default_rng(2)
    holds, shares = [], []
    for _ in range(100):
        features, classes = bank(4, 8, 3.0, rng)
        right = identify(features, rng.permutation(classes), 4, rng)
        low, high = clopper_pearson(int(right.sum()), len(right))
        holds.append(low <= 0.25 <= high)
        shares.append(right.mean())
    assert np.mean(holds) >= 0.9
    assert np.mean(shares) == pytest.approx(0.25, abs=0.035)


def test_targets_are_no_shadows() -> None:
    """Each run has a feature of its own: an attack that has the target among its shadows would know its candidate."""
    rng = np.random.default_rng(3)
    classes = np.tile(np.arange(4), 8)
    features = np.eye(32)
    assert identify(features, classes, 4, rng).mean() < 0.5


def test_folds_have_as_many_of_each_class() -> None:
    classes = np.repeat(np.arange(3), 8)
    fold = folds_of(classes, 4, np.random.default_rng(0))
    assert all(np.bincount(fold[classes == c]).tolist() == [2, 2, 2, 2] for c in range(3))


def test_linear_rows_are_reconstructed_exactly() -> None:
    rng = np.random.default_rng(4)
    rows, classes = rng.uniform(size=(12, 3)), np.tile(np.arange(12), 2)
    features = rows[classes] @ rng.normal(size=(3, 6)) + 1.0
    error, prior, _ = reconstruct(features, classes, rows, 4, rng)
    inside = (rows < rows.max()).all(axis=1) & (rows > rows.min()).all(axis=1)
    assert np.median(error[inside[classes]] / prior[inside[classes]]) < 1e-9


def test_the_row_of_a_target_is_in_no_shadow() -> None:
    """Candidates that are known by name alone are not reconstructed, although other runs have the same row."""
    rng = np.random.default_rng(5)
    rows, classes = rng.uniform(size=(12, 3)), np.tile(np.arange(12), 4)
    error, prior, shares_fold = reconstruct(np.eye(12)[classes], classes, rows, 4, rng)
    assert (error > 1e-3).all()
    assert (prior <= np.square(rows[:, None] - rows[None]).mean(axis=2).max()).all()
    assert shares_fold.sum(axis=0).tolist() == [3] * 12


def test_noise_is_no_better_than_the_prior() -> None:
    rng = np.random.default_rng(6)
    rows, classes = rng.uniform(size=(16, 4)), np.tile(np.arange(16), 4)
    error, prior, _ = reconstruct(rng.normal(size=(64, 5)), classes, rows, 4, rng)
    assert np.log(error / prior).mean() > 0


def test_equal_models_give_the_mean_and_few_candidates_nothing() -> None:
    rng = np.random.default_rng(7)
    rows, classes = rng.uniform(size=(4, 2)), np.tile(np.arange(4), 2)
    error, prior, _ = reconstruct(np.ones((8, 3)), classes, rows, 2, rng)
    assert (error >= prior - 1e-12).all()
    error, prior, _ = reconstruct(np.ones((6, 3)), classes[:6] % 3, rows[:3], 2, rng)
    assert np.isnan(error).all()
    assert np.isnan(prior).all()
