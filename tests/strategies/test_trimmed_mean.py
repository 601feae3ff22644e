"""Tests of `strategies/trimmed_mean.py`."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.strategies.trimmed_mean import TrimmedMean
from tests.strategies.strategies_helpers import aggregate


def naive_trimmed(sent: np.ndarray, cut: int) -> np.ndarray:
    """Coordinate by coordinate, in Python."""
    return np.array([np.mean(sorted(column)[cut : len(column) - cut]) for column in sent.astype(np.float64).T])


@settings(max_examples=60, deadline=None)
@given(places=st.integers(1, 12), beta=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.49]), seed=st.integers(0, 99))
def test_trimmed_mean_is_the_naive_one(places: int, beta: float, seed: int) -> None:
    # few different values, hence ties
    sent = np.random.default_rng(seed).integers(-2, 3, size=(places, 7)) / 8
    cut = int(beta * 100) * places // 100
    got = aggregate(TrimmedMean(beta=beta), sent)
    np.testing.assert_allclose(got, naive_trimmed(sent, cut), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("places", [1, 4, 5, 9, 10])
@pytest.mark.parametrize("beta", [0.0, 0.2, 0.4])
def test_trimmed_mean_agrees_with_flowers(places: int, beta: float) -> None:
    sent = np.random.default_rng(places).normal(size=(places, 50)).astype(np.float32)
    np.testing.assert_allclose(aggregate(TrimmedMean(beta=beta), sent), trim_mean(sent, beta), rtol=1e-5, atol=1e-6)


def test_trimmed_mean_differs_from_one_more_or_less_trimmed() -> None:
    sent = np.array([[0.0], [1.0], [3.0], [7.0], [100.0]])
    got = aggregate(TrimmedMean(beta=0.2), sent)
    np.testing.assert_allclose(got, naive_trimmed(sent, 1), rtol=1e-6)
    assert not np.allclose(got, naive_trimmed(sent, 0))
    assert not np.allclose(got, naive_trimmed(sent, 2))


def test_a_product_that_is_whole_up_to_rounding_is_whole() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point; Flower would cut 28."""
    sent = np.arange(100.0)[:, None] ** 3
    got = aggregate(TrimmedMean(beta=0.29), sent)
    np.testing.assert_allclose(got, naive_trimmed(sent, 29), rtol=1e-6)
    assert not np.allclose(trim_mean(sent, 0.29), naive_trimmed(sent, 29), rtol=1e-6)


def test_a_client_that_sends_no_numbers_is_cut_off() -> None:
    sent = np.array([[1.0], [2.0], [3.0], [np.nan], [4.0]])
    assert aggregate(TrimmedMean(beta=0.2), sent).tolist() == [3.0]
    assert np.isnan(aggregate(TrimmedMean(beta=0.0), sent)).all()


def test_trimmed_mean_hangs_on_no_order_to_the_last_bit() -> None:
    sent = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    first = aggregate(TrimmedMean(beta=0.2), sent)
    for order in list(permutations(range(5)))[::17]:
        assert np.array_equal(aggregate(TrimmedMean(beta=0.2), sent[list(order)]), first)
