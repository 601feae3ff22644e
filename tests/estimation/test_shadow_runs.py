"""Tests of `fedmem/estimation/shadow_runs.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.estimation.shadow_runs import PENALTIES, folds_of, identify, reconstruct
from fedmem.estimation.statistics import clopper_pearson, jackknife


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


def test_equal_models_tie_to_the_last_bit() -> None:
    """Sums of seven and of eight equal numbers are rounded in another way."""
    classes = np.repeat(np.arange(3), [7, 8, 6])
    features = np.full((21, 5), 0.1) + np.arange(5) / 3
    assert not identify(features, classes, 3, np.random.default_rng(0)).any()


def test_linear_rows_are_reconstructed_exactly() -> None:
    rng = np.random.default_rng(4)
    rows, classes = rng.uniform(size=(12, 3)), np.tile(np.arange(12), 2)
    features = rows[classes] @ rng.normal(size=(3, 6)) + 1.0
    gains = reconstruct(features, classes, rows, 4, rng)
    inside = (rows < rows.max()).all(axis=1) & (rows > rows.min()).all(axis=1)
    assert np.median(gains.over_best[inside]) > 60
    assert (gains.over_mean >= gains.over_best).all()


def naive_gains(features: FloatArray, classes: IntArray, rows: FloatArray, deal: IntArray) -> FloatArray:
    """Gain over the mean of each candidate, by normal equations and loops."""
    gains = []
    for target in range(len(rows)):
        shadows = [run for run, c in enumerate(classes) if deal[0, c] != deal[0, target]]
        by_penalty = []
        for penalty in PENALTIES:
            error = 0.0
            for part in np.unique(deal[1, classes[shadows]]):
                fit = [run for run in shadows if deal[1, classes[run]] != part]
                test = [run for run in shadows if deal[1, classes[run]] == part]
                if fit:
                    error += float(
                        np.square(_solve(features, rows[classes], fit, test, penalty) - rows[classes[test]]).sum()
                    )
            by_penalty.append(error)
        best = max(p for p, error in zip(PENALTIES, by_penalty, strict=True) if error == min(by_penalty))
        runs = np.flatnonzero(classes == target)
        others = rows[[c for c in range(len(rows)) if deal[0, c] != deal[0, target]]]
        guess = _solve(features, rows[classes], shadows, list(runs), best).clip(others.min(), others.max())
        errors = np.square(guess - rows[target]).mean(axis=1)
        gains.append(
            np.mean(10 * np.log10(np.square(rows[classes[shadows]].mean(axis=0) - rows[target]).mean() / errors))
        )
    return np.array(gains)


def _solve(features: FloatArray, truth: FloatArray, fit: list[int], test: list[int], penalty: float) -> FloatArray:
    centre, mean = features[fit].mean(axis=0), truth[fit].mean(axis=0)
    x, y = features[fit] - centre, truth[fit] - mean
    largest = float(np.linalg.norm(x, 2) ** 2)
    weights = np.linalg.solve(x.T @ x + penalty * largest * np.eye(x.shape[1]), x.T @ y)
    return np.asarray(mean + (features[test] - centre) @ weights)


@pytest.mark.parametrize("width", [5, 40])
def test_gains_are_those_of_a_naive_loop(width: int) -> None:
    """With more features than runs, they are rotated first."""
    rng = np.random.default_rng(8)
    rows, classes = rng.uniform(size=(8, 3)), np.tile(np.arange(8), 2)
    features = rows[classes] @ rng.normal(size=(3, width)) + 0.3 * rng.normal(size=(16, width))
    gains = reconstruct(features, classes, rows, 4, np.random.default_rng(1))
    place = np.empty(8, dtype=np.int64)
    place[np.random.default_rng(1).permutation(8)] = np.arange(8)
    deal = np.stack([place % 4, place // 4 % 3])
    expected = naive_gains(features, classes, rows, deal)
    assert gains.over_mean == pytest.approx(expected, abs=1e-6)
    assert gains.mean[0] == pytest.approx(expected.mean(), abs=1e-6)
    without = []
    for group in range(8):
        stays = place != group
        runs = stays[classes]
        numbers = (np.cumsum(stays) - 1)[classes[runs]]
        without.append(naive_gains(features[runs], numbers, rows[stays], deal[:, stays]).mean())
    assert gains.interval[0] == pytest.approx(jackknife(gains.mean[0], np.array(without)), abs=1e-5)


def test_the_row_of_a_target_is_in_no_shadow() -> None:
    """Candidates that are known by name alone are not reconstructed, although other runs have the same row."""
    rng = np.random.default_rng(5)
    rows, classes = rng.uniform(size=(12, 3)), np.tile(np.arange(12), 4)
    gains = reconstruct(np.eye(12)[classes], classes, rows, 4, rng)
    assert (gains.over_mean < 3).all()
    assert gains.mean[1] < 0


def test_noise_is_no_better_than_either_guess() -> None:
    rng = np.random.default_rng(6)
    rows, classes = rng.uniform(size=(16, 4)), np.tile(np.arange(16), 4)
    gains = reconstruct(rng.normal(size=(64, 5)), classes, rows, 4, rng)
    assert gains.mean[0] < 0.1
    assert gains.mean[1] < gains.mean[0]


def test_equal_models_have_a_gain_of_zero_over_the_mean() -> None:
    rng = np.random.default_rng(7)
    rows, classes = rng.uniform(size=(7, 2)), np.repeat(np.arange(7), [2, 3, 2, 3, 2, 3, 2])
    gains = reconstruct(np.full((17, 3), 0.1), classes, rows, 5, rng)
    assert gains.over_mean.tolist() == [0.0] * 7
    assert gains.mean[0] == 0.0
    assert np.isnan(gains.interval[0]).all(), "without a spread there is no interval"
    assert (gains.over_best <= 0).all()


def test_equal_rows_and_few_candidates_have_no_gain() -> None:
    rng = np.random.default_rng(7)
    rows, classes = rng.uniform(size=(6, 2)), np.tile(np.arange(6), 2)
    rows[1] = rows[0]
    gains = reconstruct(rng.normal(size=(12, 3)), classes, rows, 6, rng)
    assert np.isnan(gains.over_best[:2]).all() or np.isfinite(gains.over_best).all(), "twins may share a fold"
    assert np.isfinite(gains.mean).all()
    gains = reconstruct(np.ones((6, 3)), classes[:6] % 3, rows[:3], 2, rng)
    assert np.isnan(gains.mean).all()
    assert np.isnan(gains.over_mean).all()


def coverage(effect: float, m: int = 12, repeats: int = 60) -> tuple[float, float, float]:
    """The share of intervals that hold the mean gain over all draws, the share above 0, and the mean gain.

    Rows, the map to features and noise are drawn again each time.
    """
    rng = np.random.default_rng(9)
    found = []
    for _ in range(repeats):
        rows, classes = rng.uniform(size=(m, 8)), np.tile(np.arange(m), 3)
        features = effect * rows[classes] @ rng.normal(size=(8, 12)) + rng.normal(size=(3 * m, 12))
        gains = reconstruct(features, classes, rows, 4, rng)
        found.append((gains.mean[0], *gains.interval[0]))
    means, low, high = np.array(found).T
    return float(((low <= means.mean()) & (means.mean() <= high)).mean()), float((low > 0).mean()), float(means.mean())


@pytest.mark.slow
def test_the_interval_of_the_gain_holds_without_an_effect() -> None:
    holds, above, mean = coverage(0.0)
    assert holds >= 0.9
    assert above <= 0.05
    assert mean < 0.05


@pytest.mark.slow
def test_the_interval_of_the_gain_holds_with_an_effect() -> None:
    holds, above, mean = coverage(3.0)
    assert holds >= 0.9
    assert above > 0.3
    assert mean > 0.5


@pytest.mark.slow
def test_an_interval_of_independent_candidates_is_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmem.estimation import shadow_runs

    def halved(value: float, without: FloatArray) -> tuple[float, float]:
        low, high = jackknife(value, without)
        return (low + value) / 2, (high + value) / 2

    monkeypatch.setattr(shadow_runs, "jackknife", halved)
    assert coverage(3.0)[0] < 0.9
