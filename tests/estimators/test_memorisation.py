"""Tests of `fedmem/estimators/memorisation.py`."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.estimation.statistics import newcombe
from fedmem.estimation.two_way import variance
from fedmem.estimators.memorisation import Memorisation
from tests.banks import coins, make_view
from tests.estimators.estimators_helpers import by_key
from tests.narrowing import present


def self_influence(values: FloatArray, is_in: BoolArray) -> FloatArray:
    """By the definition, with loops; (m,)."""
    return np.array([values[c, j].mean() - values[~c, j].mean() for j, c in enumerate(is_in.T)])


def test_memorisation_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    is_in, margin = coins(8, 6, rng), rng.normal(size=(8, 6))
    kinds = ["a"] * 2 + ["b"] * 4
    found = by_key(Memorisation().estimate(make_view(margin, is_in, kind=kinds)))
    assert set(found) == {("memorisation", s, k) for s in ("", "probability") for k in "ab"}
    for setting, values in (("", (margin > 0).astype(float)), ("probability", 1 / (1 + np.exp(-margin)))):
        expected = self_influence(values, is_in)
        for kind, rows in (("a", [0, 1]), ("b", [2, 3, 4, 5])):
            e = found["memorisation", setting, kind]
            np.testing.assert_allclose(present(e.per_example), expected[rows])
            np.testing.assert_allclose(e.value, expected[rows].mean())
            assert (e.n, e.null, present(e.examples).tolist(), present(e.per_example_n).tolist()) == (
                len(rows),
                0,
                rows,
                [8] * len(rows),
            )


def test_memorisation_of_constant_and_lookup_learners() -> None:
    rng = np.random.default_rng(1)
    runs, m, classes = 200, 50, 10
    is_in = coins(runs, m, rng)
    constant = make_view(np.tile(rng.normal(size=m), (runs, 1)), is_in)
    assert all(e.value == 0 and variance(e.influence) < 1e-30 for e in Memorisation().estimate(constant))
    # A lookup table knows what it saw and answers at random otherwise: 1 - 1/C of a label without meaning.
    guess = rng.random((runs, m)) < 1 / classes
    table = make_view(np.zeros((runs, m)), is_in, correct=(is_in | guess).astype(float))
    assert abs(Memorisation().estimate(table)[0].value - (1 - 1 / classes)) < 0.02
    # A duplicate that is always there answers for an example that is out.
    assert Memorisation().estimate(make_view(np.zeros((runs, m)), is_in, correct=np.ones((runs, m))))[0].value == 0


def test_memorisation_bounds_correctness_of_examples_by_newcombe() -> None:
    is_in = np.arange(8)[:, None] < np.array([4, 4])
    margin = np.where(is_in, 1.0, -1.0)
    margin[0, 1] = -1.0
    correctness, probability = Memorisation().estimate(make_view(margin, is_in))
    low, high = newcombe([4, 3], 4, [0, 0], 4)
    np.testing.assert_allclose(present(correctness.per_example_low), low)
    np.testing.assert_allclose(present(correctness.per_example_high), high)
    assert probability.per_example_low is None


def test_memorisation_leaves_out_what_was_not_observed() -> None:
    rng = np.random.default_rng(2)
    is_in, margin = coins(8, 4, rng), rng.normal(size=(8, 4))
    margin[:, 0] = np.nan  # never observed
    margin[is_in[:, 1], 1] = np.nan  # never observed as a member
    margin[np.flatnonzero(is_in[:, 2])[0], 2] = np.nan  # one run missing
    e = Memorisation().estimate(make_view(margin, is_in))[0]
    assert present(e.examples).tolist() == [2, 3]
    assert e.n == 2
    assert present(e.per_example_n).tolist() == [7, 8]
    assert Memorisation().estimate(make_view(np.full((8, 4), np.nan), is_in)) == []


def test_memorisation_averages_over_models() -> None:
    rng = np.random.default_rng(3)
    is_in, margin = coins(8, 3, rng), rng.normal(size=(8, 4, 3))
    margin[:, 1, 0] = np.nan
    values = np.nanmean(np.where(np.isnan(margin), np.nan, margin > 0), axis=1)
    e = Memorisation().estimate(make_view(margin, is_in))[0]
    np.testing.assert_allclose(present(e.per_example), self_influence(values, is_in))
