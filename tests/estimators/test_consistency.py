"""Tests of `fedmem/estimators/consistency.py`."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.estimation.statistics import wilson
from fedmem.estimators.consistency import Consistency
from fedmem.estimators.memorisation import Memorisation
from tests.banks import coins, make_view
from tests.narrowing import present


def estimates(view: View) -> tuple[Estimate, Estimate]:
    """Over out runs, and over in runs."""
    found = {str(e.labels): e for e in Consistency().estimate(view)}
    return found[""], found["statistic=in"]


def nearest_neighbours(n: int = 7, taken: int = 4) -> tuple[View, FloatArray]:
    """1-NN learners of all subsets of a size, and the share of those without i that are right about i, by counting."""
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(n, 2)), rng.integers(0, 2, n)
    subsets = list(combinations(range(n), taken))
    is_in: BoolArray = np.array([np.isin(np.arange(n), subset) for subset in subsets])
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    order = distance.argsort(1)
    correct = np.array([[labels[next(k for k in order[i] if c[k])] == labels[i] for i in range(n)] for c in is_in])
    # the j-th nearest is the first that is there with hypergeometric probability
    first = [math.comb(n - 1 - j, taken - 1) / math.comb(n - 1, taken) for j in range(1, n)]
    expected = np.array(
        [sum(p * (labels[k] == labels[i]) for p, k in zip(first, order[i, 1:], strict=True)) for i in range(n)]
    )
    return make_view(np.zeros(is_in.shape), is_in, correct=correct.astype(float), round_number=None), expected


def test_nearest_neighbours_have_their_hypergeometric_score() -> None:
    view, expected = nearest_neighbours()
    out, inside = estimates(view)
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_allclose(present(out.per_example), expected)
    np.testing.assert_allclose(present(inside.per_example), 1)
    (memorisation,) = [e for e in Memorisation().estimate(view) if not len(e.labels)]
    np.testing.assert_allclose(present(out.per_example), 1 - present(memorisation.per_example))
    assert out.value == pytest.approx(expected.mean())
    assert math.isnan(out.null)


def test_score_of_runs_that_trained_on_the_example_is_not_it() -> None:
    """The trap: an oracle test that reads in runs, or all runs, fails."""
    view, expected = nearest_neighbours()
    _, inside = estimates(view)
    assert np.abs(present(inside.per_example) - expected).max() > 0.5
    assert np.abs(view.correct[:, 0].mean(0) - expected).max() > 0.2


def test_constant_learner_has_the_share_of_its_class() -> None:
    labels = np.arange(30) % 3
    is_in = coins(8, 30, np.random.default_rng(1))
    view = make_view(np.zeros((8, 30)), is_in, correct=np.broadcast_to(labels == 0, (8, 30)).astype(float))
    for e in estimates(view):
        assert e.value == pytest.approx(1 / 3)


def test_intervals_of_examples_are_those_of_wilson() -> None:
    is_in = np.arange(8)[:, None] < np.array([4, 4])
    correct = np.zeros((8, 2))
    correct[4:7, 0], correct[:, 1] = 1, 1
    out, inside = estimates(make_view(np.zeros((8, 2)), is_in, correct=correct))
    for e, right in ((out, [3, 4]), (inside, [0, 4])):
        low, high = wilson(right, 4)
        np.testing.assert_allclose([present(e.per_example_low), present(e.per_example_high)], [low, high])
        assert present(e.per_example_n).tolist() == [4, 4]


def test_shuffled_coins_leave_no_difference_of_sides() -> None:
    rng = np.random.default_rng(2)
    gaps = []
    for _ in range(200):
        view = make_view(rng.normal(size=(8, 20)), coins(8, 20, rng), draws=1)
        out, inside = estimates(view)
        gaps.append(inside.value - out.value)
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / math.sqrt(200)
