"""Tests of `fedmem/estimators/exposure.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.estimator import View
from fedmem.estimators.exposure import Exposure, null_mean
from tests.banks import coins, make_view
from tests.estimators.estimators_helpers import by_key
from tests.narrowing import present


@pytest.mark.parametrize(("references", "expected"), [(10, 1.16), (100, 1.40), (1000, 1.436), (10_000, 1.442)])
def test_null_mean_is_the_mean_over_ranks(references: int, expected: float) -> None:
    ranks = np.arange(1, references + 2)
    exact = np.log2((references + 1) / ranks).mean()
    assert null_mean(references) == pytest.approx(exact, rel=1e-9)
    assert null_mean(references) == pytest.approx(expected, abs=0.005)


def exposure_view(rank: NDArray[Any], is_in: BoolArray, references: int = 9, **more: Any) -> View:
    return make_view(np.zeros(is_in.shape), is_in, rank=np.asarray(rank, float), references=references, **more)


def test_exposure_of_planted_ranks() -> None:
    is_in = np.array([[True, True], [True, False], [False, True], [False, False]])
    rank = np.array([[1, 10], [2, 5], [10, 5], [5, 10]])  # among 9 references: from first to last
    found = by_key(Exposure().estimate(exposure_view(rank, is_in)))
    exposure, gain = found["exposure", "", "random_pattern"], found["exposure_gain", "", "random_pattern"]
    bits = np.log2(10 / rank)
    assert bits.min() == 0  # last of N + 1: zero, not below
    np.testing.assert_allclose(
        present(exposure.per_example), [(bits[0, 0] + bits[1, 0]) / 2, (bits[0, 1] + bits[2, 1]) / 2]
    )
    assert exposure.value == pytest.approx(present(exposure.per_example).mean())
    np.testing.assert_allclose(
        present(gain.per_example),
        present(exposure.per_example) - [(bits[2, 0] + bits[3, 0]) / 2, (bits[1, 1] + bits[3, 1]) / 2],
    )
    assert exposure.null == pytest.approx(null_mean(9))
    assert gain.null == 0
    assert present(exposure.per_example_n).tolist() == [2, 2]
    assert present(gain.per_example_n).tolist() == [4, 4]


def test_exposure_of_a_canary_that_ties_with_everything() -> None:
    # rank 1 + 9/2 of ten places: below the null, not at the top
    is_in = np.array([[True], [False]])
    e = Exposure().estimate(exposure_view(np.full((2, 1), 5.5), is_in))[0]
    assert e.value == pytest.approx(math.log2(10 / 5.5))
    assert e.value < e.null


def test_exposure_needs_no_out_run_but_its_gain_does() -> None:
    is_in = np.ones((1, 3), bool)
    assert [e.metric for e in Exposure().estimate(exposure_view(np.ones((1, 3)), is_in))] == ["exposure"]


def test_exposure_of_what_is_no_canary_does_not_exist() -> None:
    is_in = coins(4, 3, np.random.default_rng(0))
    view = make_view(np.zeros((4, 3)), is_in)
    assert Exposure().estimate(view) == []
    assert Exposure().tests(view) == []


def test_combined_test_is_fishers_by_run_and_over_in_canaries() -> None:
    is_in = np.array([[True, True, False], [False, False, True], [False, False, False]])
    rank = np.array([[1, 2, 1], [1, 1, 4], [1, 1, 1]])
    rows = Exposure().tests(exposure_view(rank, is_in))
    p = {run: r for run, r in rows if r.metric == "exposure_p"}
    assert set(p) == {0, 1}  # a run without an in canary is not tested
    assert p[0].value == pytest.approx(chi2.sf(2 * math.log(2) * (math.log2(10) + math.log2(5)), 4))
    assert p[1].value == pytest.approx(10**-1 * 4)  # one canary: its rank over N + 1
    assert (p[0].n, p[1].n) == (2, 1)
    (rejected,) = [r for run, r in rows if run is None]
    assert (rejected.metric, rejected.value, rejected.n) == ("exposure_rejected", 0.0, 2)
    assert math.isnan(rejected.low)


def test_no_combined_test_at_the_others() -> None:
    is_in = np.array([[True], [False]])
    view = exposure_view(np.ones((2, 1)), is_in, level="local", place="others")
    assert Exposure().tests(view) == ()


def test_exposure_is_the_mean_of_bits_over_runs_models_canaries() -> None:
    """Of ranks 1 and 16 among 15 references: 4 bits and 0 are 2 bits, not the 0.9 bits of their mean rank."""
    is_in = np.array([[True, True], [True, True], [False, False], [False, False]])
    over_runs = exposure_view(np.array([[1, 1], [16, 16], [4, 4], [4, 4]]), is_in, references=15)
    over_canaries = exposure_view(np.array([[1, 16], [1, 16], [4, 4], [4, 4]]), is_in, references=15)
    ranks = np.array([[[1, 1], [16, 16]]] * 2 + [[[4, 4], [4, 4]]] * 2, float)  # of two other clients
    over_models = make_view(np.zeros((4, 2, 2)), is_in, rank=ranks, references=15, level="local", place="others")
    for view in (over_runs, over_canaries, over_models):
        found = by_key(Exposure().estimate(view))
        assert found["exposure", "", "random_pattern"].value == pytest.approx(2.0)
        assert found["exposure_gain", "", "random_pattern"].value == pytest.approx(0.0)
