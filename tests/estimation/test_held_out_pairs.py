"""Tests of `fedmem/estimation/held_out_pairs.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.estimation.held_out_pairs import (
    concordant_pairs,
    fit_direction,
    hull,
    pair_area,
    smoother,
    transfer_area,
    upper_p,
)
from fedmem.estimation.statistics import wilson
from fedmem.estimation.update_evidence import halves_of

Groups = list[tuple[FloatArray, BoolArray]]


def group(runs: int, size: int, shift: float, rng: np.random.Generator, deals: int = 0) -> tuple[FloatArray, BoolArray]:
    """Gaussian features whose first one is higher by `shift` in runs with the property, and deals of labels."""
    labels = rng.permuted(np.tile(np.arange(runs) % 2 == 0, (1 + deals, 1)), axis=1)
    features = rng.normal(size=(runs, size)) + 5 * rng.normal(size=size)
    features[:, 0] += shift * labels[0]
    return features, labels


def halves(runs: int, rng: np.random.Generator) -> BoolArray:
    return halves_of(runs, 4, rng)


def test_equals_a_loop_that_fits_without_each_pair() -> None:
    rng = np.random.default_rng(0)
    x, labels = group(12, 5, 1.0, rng)
    spread = x - x.mean(axis=0)
    ridge = 0.7 * np.square(spread).sum() / 5
    won = 0
    for i in np.flatnonzero(labels[0]):
        for j in np.flatnonzero(~labels[0]):
            rest = np.setdiff1d(np.arange(12), [i, j])
            centred, y = x[rest] - x[rest].mean(axis=0), np.where(labels[0, rest], 1.0, -1.0)
            weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(5), centred.T @ (y - y.mean()))
            won += bool((x[i] - x[j]) @ weights > 0)
    found, pairs = concordant_pairs(smoother(x, 0.7), labels)
    assert (found[0], pairs[0]) == (won, 36)


def test_auc_is_that_of_the_linear_discriminant() -> None:
    """Two Gaussians whose means are d standard deviations apart have AUC Φ(d/√2)."""
    rng = np.random.default_rng(1)
    for shift in (0.5, 1.5):
        sums = [concordant_pairs(smoother(x, 0.01), y) for x, y in (group(200, 3, shift, rng) for _ in range(8))]
        assert np.mean([won[0] / pairs[0] for won, pairs in sums]) == pytest.approx(ndtr(shift / np.sqrt(2)), abs=0.03)


def test_without_a_property_auc_is_half_and_p_holds_its_level() -> None:
    """Pooled scores of left-out runs would give .3 to .4 here."""
    rng = np.random.default_rng(2)
    areas = [pair_area([group(12, 20, 0.0, rng, 39)], 1.0) for _ in range(150)]
    assert np.mean([area.value for area in areas]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([area.p <= 0.05 for area in areas]) < 0.1
    assert np.mean([area.low <= 0.5 <= area.high for area in areas]) > 0.9


def test_transfer_has_no_signal_without_a_property() -> None:
    rng = np.random.default_rng(3)
    areas = []
    for _ in range(60):
        groups = [group(12, 20, 0.0, rng, 19) for _ in range(3)]
        areas.append(transfer_area(groups, 1.0, halves(12, rng)))
    assert np.mean([area.value for area in areas]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([area.p <= 0.05 for area in areas]) < 0.13


def test_transfer_finds_only_what_groups_share() -> None:
    rng = np.random.default_rng(4)
    groups = [group(24, 6, 4.0, rng, 49) for _ in range(3)]
    shared = transfer_area(groups, 1.0, halves(24, rng))
    assert shared.value > 0.9
    assert shared.p == pytest.approx(0.02)
    # the property moves another feature in each group
    own = [(np.roll(x, place, axis=1), labels) for place, (x, labels) in enumerate(groups)]
    assert transfer_area(own, 1.0, halves(24, rng)).value < 0.7
    assert pair_area(own, 1.0).value > 0.9


def test_runs_of_the_fit_are_not_compared() -> None:
    """Victims with one coin and features that a run gives to all of them: without halves, mean AUC would be .8."""
    rng = np.random.default_rng(12)
    found = []
    for _ in range(40):
        shared, labels = group(16, 20, 0.0, rng)
        groups = [(shared + 0.1 * rng.normal(size=shared.shape), labels) for _ in range(3)]
        found.append(transfer_area(groups, 1.0, halves(16, rng)).value)
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_the_place_of_a_group_does_not_count() -> None:
    rng = np.random.default_rng(13)
    groups, split = [group(16, 4, 1.0, rng) for _ in range(3)], halves(16, rng)
    moved = [(x + 100 * rng.normal(size=4), labels) for x, labels in groups]
    assert transfer_area(moved, 1.0, split).value == pytest.approx(transfer_area(groups, 1.0, split).value)


def test_disjoint_pairs_are_those_of_the_smaller_class() -> None:
    labels = np.arange(12)[None] < 2
    low, high = hull(1.0, np.ones(12), labels)
    assert low == pytest.approx(float(wilson(2.0, 2)[0]))
    assert high == 1.0
    assert low == hull(1.0, np.ones(12), ~labels)[0]


def test_sign_and_labels_are_what_counts() -> None:
    rng = np.random.default_rng(5)
    x, labels = group(24, 2, 6.0, rng)
    for area in (pair_area([(x, labels)], 1.0), pair_area([(-x, labels)], 1.0), pair_area([(x, ~labels)], 1.0)):
        assert area.value == 1.0
    # a test group whose property has the opposite effect
    other, dealt = group(24, 2, -6.0, rng)
    assert transfer_area([(x, labels), (other, dealt)], 1.0, halves(24, rng)).value < 0.1


def test_scale_and_place_do_not_count() -> None:
    rng = np.random.default_rng(6)
    x, labels = group(16, 8, 1.0, rng)
    expected = pair_area([(x, labels)], 1.0).value
    for changed in (1e-9 * x, 1e120 * x, x + 1e3):
        assert pair_area([(changed, labels)], 1.0).value == pytest.approx(expected)


def test_equal_features_tie() -> None:
    labels = np.tile(np.arange(8) % 2 == 0, (2, 1))
    flat = np.ones((8, 3))
    assert pair_area([(flat, labels)], 1.0).value == 0.5
    assert transfer_area([(flat, labels), (flat, labels)], 1.0, halves(8, np.random.default_rng(0))).value == 0.5


def test_too_few_runs_of_a_side_are_undefined() -> None:
    x = np.random.default_rng(7).normal(size=(6, 2))
    one_sided = np.zeros((1, 6), dtype=bool)
    single = np.arange(6)[None] == 0
    for labels in (one_sided, single, ~single):
        area = pair_area([(x, labels)], 1.0)
        assert np.isnan([area.value, area.low, area.high, area.p]).all()
    assert np.isnan(pair_area([], 1.0).value)
    assert np.isnan(transfer_area([(x, single)], 1.0, halves(6, np.random.default_rng(0))).value)


def test_runs_without_features_do_not_count() -> None:
    rng = np.random.default_rng(8)
    x, labels = group(20, 3, 1.0, rng)
    gone = x.copy()
    gone[4] = np.nan
    gone[7, 1] = np.inf
    rest = np.setdiff1d(np.arange(20), [4, 7])
    found, expected = pair_area([(gone, labels)], 1.0), pair_area([(x[rest], labels[:, rest])], 1.0)
    assert found.n == 18
    assert found.value == expected.value


def test_a_perfect_auc_has_an_interval() -> None:
    rng = np.random.default_rng(9)
    area = pair_area([group(16, 2, 50.0, rng)], 1.0)
    assert area.value == area.high == 1.0
    assert 0.6 < area.low < 0.7  # eight disjoint pairs


def test_a_jackknife_over_many_runs_leaves_out_blocks() -> None:
    area = pair_area([group(90, 2, 1.0, np.random.default_rng(11))], 1.0)
    assert area.low < area.value < area.high


def test_groups_with_the_same_labels_are_one_draw() -> None:
    rng = np.random.default_rng(10)
    x, labels = group(16, 2, 50.0, rng)
    assert pair_area([(x, labels)] * 3, 1.0).low == pair_area([(x, labels)], 1.0).low
    apart = [(x + 50 * dealt[0][:, None], dealt) for dealt in (labels, rng.permuted(labels, axis=1))]
    assert len(np.unique([dealt[0] for _, dealt in apart], axis=0)) == 2


def test_p_counts_ties_and_unknown_deals_as_large() -> None:
    assert upper_p(np.array([0.7, 0.7, np.nan, 0.2])) == 0.75
    assert np.isnan(upper_p(np.array([np.nan, 0.5])))


@pytest.mark.parametrize("size", [4, 30])
def test_the_ridge_is_a_multiple_of_the_mean_variance(size: int) -> None:
    """Of n − 1 directions where there are more features than cases, as of d where there are fewer."""
    x, labels = group(10, size, 0.0, np.random.default_rng(14))
    spread = x - x.mean(axis=0)
    ridge = 0.7 * np.square(spread).sum() / min(9, size)
    inverse = np.linalg.inv(spread.T @ spread + ridge * np.eye(size))
    assert smoother(x, 0.7) == pytest.approx(1 / 10 + spread @ inverse @ spread.T)
    y = np.where(labels[0], 1.0, -1.0)
    # the directions of a group are counted without its mean, those of a fit over groups with each
    ridge = 0.7 * np.square(spread).sum() / min(10, size)
    expected = np.linalg.solve(spread.T @ spread + ridge * np.eye(size), spread.T @ (y - y.mean()))
    direction = fit_direction([(x, labels)], 0.7)
    assert direction is not None
    assert direction[:, 0] / np.abs(spread).max() == pytest.approx(expected)


@pytest.mark.parametrize(("runs", "blocks"), [(4, 4), (20, 20), (70, 64)])
def test_the_jackknife_leaves_out_single_cases_up_to_64(runs: int, blocks: int) -> None:
    x, labels = group(runs, 2, 1.0, np.random.default_rng(15))
    whole = pair_area([(x, labels)], 1.0)
    assert np.isfinite(whole.value)
    without = [
        pair_area([(np.delete(x, block, axis=0), np.delete(labels, block, axis=1))], 1.0).value
        for block in np.array_split(np.arange(runs), blocks)
    ]
    assert (whole.low, whole.high) == pytest.approx(hull(whole.value, np.array(without), labels))


def test_transfer_equals_a_loop_over_pairs() -> None:
    """And its jackknife leaves out all pairs of a case, with the fits as they are."""
    rng = np.random.default_rng(16)
    groups, split = [group(10, 3, 1.0, rng) for _ in range(2)], halves(10, rng)[:2]
    won = []
    for half in split:
        for fitted in (half, ~half):
            for place in range(2):
                (x, labels), (train, of_train) = groups[place], groups[1 - place]
                direction = fit_direction([(train[fitted], of_train[:, fitted])], 1.0)
                assert direction is not None
                scores = x @ direction[:, 0]
                tested = np.flatnonzero(~fitted)
                won += [
                    (i, j, bool(scores[i] > scores[j])) for i in tested for j in tested if labels[0, i] > labels[0, j]
                ]
    without = [np.mean([share for i, j, share in won if case not in (i, j)]) for case in range(10)]
    found = transfer_area(groups, 1.0, split)
    assert found.value == pytest.approx(np.mean([share for *_, share in won]))
    ends = hull(found.value, np.array(without), np.array([labels[0] for _, labels in groups]))
    assert (found.low, found.high) == pytest.approx(ends)
