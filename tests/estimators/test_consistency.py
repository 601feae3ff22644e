"""Tests of `fedmem/estimators/consistency.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.estimation.statistics import jackknife, wilson
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


def of_probabilities(p: FloatArray, is_in: BoolArray) -> dict[tuple[str, str], Estimate]:
    """By measure and side: the estimates where these probabilities (R, m, C) were read."""
    correct = np.zeros(is_in.shape)
    view = make_view(correct, is_in, correct=correct)
    view = replace(view, signals={f"probability.{c}": p[:, None, :, c] for c in range(p.shape[-1])})
    return {(e.metric, str(e.labels)): e for e in Consistency().estimate(view)}


def test_disagreement_is_the_divergence_of_pairs_of_one_side() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(10, 4, rng)
    p = rng.dirichlet(np.ones(5), size=(10, 4))
    found = of_probabilities(p, is_in)
    for side, label in ((~is_in, ""), (is_in, "statistic=in")):
        expected = [
            np.mean([jensenshannon(*p[list(pair), j]) ** 2 for pair in combinations(np.flatnonzero(side[:, j]), 2)])
            for j in range(4)
        ]
        np.testing.assert_allclose(present(found["disagreement", label].per_example), expected)
        largest = [p[side[:, j], j].max(-1).mean() for j in range(4)]
        np.testing.assert_allclose(present(found["top_probability", label].per_example), largest)
    assert not any(metric.endswith("_gain") for metric, _ in found)


def test_models_that_agree_have_none_and_opposite_ones_half() -> None:
    is_in = np.arange(8)[:, None] < np.array([4, 4])
    p = np.zeros((8, 2, 2))
    p[:, 0] = [1.0, 0.0]
    # of four out runs two are sure of either class: 4 of 6 pairs disagree entirely
    p[np.arange(8), 1, np.arange(8) % 2] = 1.0
    found = of_probabilities(p, is_in)["disagreement", ""]
    np.testing.assert_allclose(present(found.per_example), [0.0, 4 / 6 * math.log(2)], atol=1e-12)


def test_disagreement_does_not_depend_on_the_number_of_runs() -> None:
    """A divergence from the mean of all runs, which grows with their number, fails this."""
    rng = np.random.default_rng(1)
    values = []
    for runs in (4, 32):
        is_in = coins(runs, 300, rng)
        p = rng.dirichlet(np.ones(3), size=(runs, 300))
        values.append(of_probabilities(p, is_in)["disagreement", ""])
    first, second = values
    assert abs(first.value - second.value) < 0.02
    assert first.value > 0.1


def test_interval_of_a_disagreement_covers() -> None:
    """One with the deviations of single divergences, without the factor 2, is half as wide and fails."""
    rng = np.random.default_rng(2)
    truth = of_probabilities(rng.dirichlet(np.ones(3), size=(60, 400)), coins(60, 400, rng))["disagreement", ""].value
    is_in = coins(24, 600, rng)
    found = of_probabilities(rng.dirichlet(np.ones(3), size=(24, 600)), is_in)["disagreement", ""]
    low, high = present(found.per_example_low), present(found.per_example_high)
    assert 0.9 < ((low < truth) & (truth < high)).mean() < 0.99


def test_interval_of_a_disagreement_is_that_of_the_jackknife() -> None:
    """Deviations of first order are too small: with four runs on a side by a third."""
    rng = np.random.default_rng(3)
    p, is_in = rng.dirichlet(np.ones(3), size=(8, 1)), np.arange(8)[:, None] >= 4
    found = of_probabilities(p, is_in)["disagreement", ""]
    pairs = {pair: jensenshannon(*p[list(pair), 0]) ** 2 for pair in combinations(range(4), 2)}
    without = [np.mean([value for pair, value in pairs.items() if run not in pair]) for run in range(4)]
    expected = jackknife(float(np.mean([*pairs.values()])), np.array(without))
    np.testing.assert_allclose(expected[1], present(found.per_example_high))
    np.testing.assert_allclose(max(expected[0], 0.0), present(found.per_example_low))


def test_without_probabilities_consistency_alone_is_there() -> None:
    is_in = coins(8, 3, np.random.default_rng(0))
    view = make_view(np.zeros((8, 3)), is_in)
    assert {e.metric for e in Consistency().estimate(view)} == {"consistency"}
    assert [quantity.metric for quantity in Consistency().example_values(view)] == ["consistency"]
