"""Tests of `fedmem/estimation/coin_adjustment.py`: exact enumeration, simulations, and what a wrong fit does."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.estimation.coin_adjustment import adjust, balanced_folds, features_of
from fedmem.estimation.statistics import welch_columns
from tests.banks import coins, make_audit

EVERY_HALF = [np.isin(np.arange(6), chosen) for chosen in combinations(range(6), 3)]
"""All 20 balanced columns of coins of six runs."""


def outcomes(is_in: BoolArray) -> FloatArray:
    """What a small learner says about each of two examples, with an interaction of their coins."""
    one, other = is_in.astype(np.float64).T
    first = 0.2 + 0.3 * one + 0.5 * other + 0.4 * one * other
    second = 0.6 * other - 0.7 * one + 0.9 * one * other
    return np.asarray(np.stack([first, second], axis=1), np.float64)


def gaps(values: FloatArray, is_in: BoolArray) -> FloatArray:
    return np.array([float(v[c].mean() - v[~c].mean()) for v, c in zip(values.T, is_in.T, strict=True)])


def one_feature(is_in: BoolArray) -> FloatArray:
    """The coin of the other example."""
    return np.where(is_in[:, ::-1, None], 1.0, -1.0)


def enumerate_banks(*, one_by_one: bool = False) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The means over all 400 banks of plain and adjusted differences, and the mean squared change."""
    order = np.array([3, 0, 5, 1, 4, 2])
    plain, adjusted, moved = np.zeros(2), np.zeros(2), np.zeros(2)
    for columns in product(EVERY_HALF, repeat=2):
        is_in = np.stack(columns, axis=1)
        y = outcomes(is_in)
        folds: IntArray = balanced_folds(is_in, order, 3)
        if one_by_one:
            folds = np.tile(np.arange(6)[:, None], (1, 2))
        found = gaps(adjust(y, is_in, one_feature(is_in), folds), is_in)
        plain += gaps(y, is_in) / 400
        adjusted += found / 400
        moved += (found - gaps(y, is_in)) ** 2 / 400
    return plain, adjusted, moved


def test_expectation_over_all_coins_is_that_without_adjustment() -> None:
    plain, adjusted, moved = enumerate_banks()
    np.testing.assert_allclose(plain, [0.3 + 0.2, 0.6 + 0.45], atol=1e-12)
    np.testing.assert_allclose(adjusted, plain, atol=1e-12)
    assert (moved > 1e-3).all(), "something is taken off"


def test_folds_with_unequal_sides_have_a_bias() -> None:
    """Leaving one run out at a time is the obvious way, and a wrong one."""
    plain, adjusted, _ = enumerate_banks(one_by_one=True)
    assert np.abs(adjusted - plain).max() > 1e-3


def test_folds_are_balanced_and_depend_on_nothing_but_coins() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(16, 30, rng)
    folds = balanced_folds(is_in, rng.permutation(16))
    for number in range(4):
        inside = folds == number
        assert ((inside & is_in).sum(0) == 2).all()
        assert ((inside & ~is_in).sum(0) == 2).all()
    is_in[0, 0] = ~is_in[0, 0]
    assert (balanced_folds(is_in, np.arange(16))[:, 0] == -1).all()
    order = rng.permutation(16)
    flipped = balanced_folds(~is_in, order)
    np.testing.assert_array_equal(flipped, balanced_folds(is_in, order))


def planted(runs: int, m: int, seed: int, strength: float, own: float = 0.3) -> tuple[AuditSet, FloatArray]:
    """An outcome that near examples of the same label raise, with noise; no two banks have the same coins."""
    rng = np.random.default_rng(seed)
    audit = make_audit(["typical"] * m, [0] * m, coins(runs, m, rng))
    place = np.random.default_rng(1).normal(size=(m, 3)).astype(np.float32)
    audit = replace(audit, examples=replace(audit.examples, inputs=place))
    distance = np.square(place[:, None] - place).sum(-1) + 1e9 * np.eye(m)
    helps = np.exp(-distance) * strength
    y = audit.is_in @ helps.T + own * audit.is_in + 0.3 * rng.normal(size=(runs, m))
    return audit, y


def adjusted(audit: AuditSet, y: FloatArray) -> FloatArray:
    rows = np.arange(len(audit))
    folds = balanced_folds(audit.is_in, np.random.default_rng(0).permutation(audit.runs))
    return adjust(y, audit.is_in, features_of(audit, rows), folds)


def errors(values: FloatArray, is_in: BoolArray) -> FloatArray:
    return gaps(values, is_in) - 0.3


def test_noise_of_near_examples_is_taken_off() -> None:
    before, after = [], []
    for seed in range(16):
        audit, y = planted(32, 24, seed, strength=1.0)
        before.append(errors(y, audit.is_in))
        after.append(errors(adjusted(audit, y), audit.is_in))
    ratio = np.std(after) / np.std(before)
    assert ratio < 0.85
    assert abs(np.mean(after)) < 4 * np.std(after) / np.sqrt(np.size(after))


def test_without_other_influences_hardly_any_noise_is_added() -> None:
    before, after = [], []
    for seed in range(16):
        audit, y = planted(32, 24, seed, strength=0.0)
        before.append(errors(y, audit.is_in))
        after.append(errors(adjusted(audit, y), audit.is_in))
    assert np.std(after) < 1.03 * np.std(before)


@pytest.mark.parametrize(("strength", "own"), [(0.0, 0.3), (1.0, 0.3), (1.0, 0.0)])
def test_intervals_of_single_examples_cover(strength: float, own: float) -> None:
    """Also without an effect, where not covering 0 is a false alarm."""
    covered = []
    for seed in range(14):
        audit, y = planted(32, 24, seed, strength, own)
        values = adjusted(audit, y)
        low, high = welch_columns(np.where(audit.is_in, values, np.nan), np.where(audit.is_in, np.nan, values))
        covered.append((low <= own) & (own <= high))
    assert 0.92 <= np.mean(covered) <= 0.98


def test_missing_values_and_odd_examples_stay_as_they_are() -> None:
    audit, y = planted(16, 12, 0, strength=1.0)
    y[3, 5] = np.nan
    values = adjusted(audit, y)
    np.testing.assert_array_equal(values[:, 5], y[:, 5])
    assert (np.delete(values, 5, axis=1) != np.delete(y, 5, axis=1)).any(0).all()
    assert not np.isnan(np.delete(values, 5, axis=1)).any()


def test_features_of_an_example_do_not_know_its_own_coin() -> None:
    audit, _ = planted(16, 12, 0, strength=1.0)
    rows = np.arange(12)
    before = features_of(audit, rows)
    is_in = audit.is_in.copy()
    is_in[:, 4] = ~is_in[:, 4]
    after = features_of(replace(audit, is_in=is_in), rows)
    np.testing.assert_array_equal(before[:, 4], after[:, 4])
    assert (np.delete(before, 4, axis=1) != np.delete(after, 4, axis=1)).any((0, 2)).all()
