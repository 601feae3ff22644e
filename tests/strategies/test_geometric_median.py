"""Tests of `strategies/geometric_median.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.strategies.geometric_median import GeometricMedian
from tests.strategies.strategies_helpers import aggregate


@settings(max_examples=40, deadline=None)
@given(places=st.integers(3, 9), weighting=st.sampled_from(["size", "uniform"]), seed=st.integers(0, 99))
def test_no_small_step_lessens_the_sum_of_distances(places: int, weighting: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sent, sizes = rng.normal(size=(places, 5)).astype(np.float32), rng.integers(1, 9, places)
    got = aggregate(GeometricMedian(weighting=weighting, iterations=2000), sent, sizes=sizes).astype(np.float64)
    weights = sizes if weighting == "size" else np.ones(places)

    def cost(point: np.ndarray) -> float:
        return float(float(weights @ np.linalg.norm(sent - point, axis=1)) / weights.sum())

    best = cost(got)
    for step in (0.1, 0.01):
        for direction in rng.normal(size=(20, 5)):
            assert cost(got + step * direction / np.linalg.norm(direction)) > best - 1e-6
    # the mean is not it
    assert cost(np.average(sent, axis=0, weights=weights)) > best


def test_known_geometric_medians() -> None:
    # the middle one of an odd number on a line, the centre of a square, the corner of an angle of 120 degrees or more
    line = [[0.0], [1.0], [2.0], [50.0], [1e6]]
    assert aggregate(GeometricMedian(), line)[0] == pytest.approx(2.0, abs=1e-3)
    square = [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]
    assert aggregate(GeometricMedian(), square) == pytest.approx([1.0, 1.0], abs=1e-6)
    blunt = [[-3.0, 0.5], [0.0, 0.0], [3.0, 0.5]]
    assert aggregate(GeometricMedian(iterations=5000), blunt) == pytest.approx([0.0, 0.0], abs=1e-3)
    heavy = aggregate(GeometricMedian(weighting="size"), [[0.0], [1.0]], sizes=[1, 3])
    assert heavy[0] == pytest.approx(1.0, abs=1e-3)


def test_one_step_is_weiszfelds_from_the_mean() -> None:
    sent = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    mean = sent.astype(np.float64).mean(0)
    pull = 1 / np.linalg.norm(sent - mean, axis=1)
    expected = (pull / pull.sum()) @ sent
    np.testing.assert_allclose(aggregate(GeometricMedian(iterations=1), sent), expected, rtol=1e-5, atol=1e-6)
    wrong = np.linalg.norm(sent - mean, axis=1)
    assert not np.allclose((wrong / wrong.sum()) @ sent, expected, rtol=1e-2)


def test_clients_in_one_place_divide_by_nothing() -> None:
    assert aggregate(GeometricMedian(), [[1.0, 2.0]] * 3).tolist() == [1.0, 2.0]
    assert aggregate(GeometricMedian(), [[1.0], [1.0], [9.0]])[0] == pytest.approx(1.0, abs=1e-4)
