"""Tests of `strategies/bulyan.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.strategies.bulyan import Bulyan
from tests.strategies.strategies_helpers import aggregate, naive_scores


def naive_bulyan(sent: np.ndarray, f: int) -> np.ndarray:
    """As published: choose by Krum and take out, theta times; then around the median, coordinate by coordinate."""
    f = min(f, max(0, (len(sent) - 3) // 4))
    left = list(range(len(sent)))
    chosen: list[int] = []
    while len(chosen) < len(sent) - 2 * f:
        neighbours = min(max(1, len(left) - f - 2), len(left) - 1)
        scores = naive_scores(sent[left], neighbours) if neighbours else [0.0]
        chosen.append(left.pop(int(np.argmin(scores))))
    beta = len(chosen) - 2 * f
    result = []
    for column in sent[chosen].astype(np.float64).T:
        middle = np.median(column)
        result.append(np.mean(sorted(column, key=lambda value: (abs(value - middle), value))[:beta]))
    return np.array(result)


@settings(max_examples=60, deadline=None)
@given(places=st.integers(1, 13), f=st.integers(0, 3), seed=st.integers(0, 99))
def test_bulyan_is_the_naive_one(places: int, f: int, seed: int) -> None:
    sent = np.random.default_rng(seed).normal(size=(places, 6)).astype(np.float32)
    np.testing.assert_allclose(aggregate(Bulyan(f=f), sent), naive_bulyan(sent, f), rtol=1e-5, atol=1e-6)


def test_bulyan_differs_from_a_single_choice() -> None:
    differ = 0
    for seed in range(20):
        sent = np.random.default_rng(seed).normal(size=(7, 6)).astype(np.float32)
        once = np.argsort(naive_scores(sent, 4))[:5]
        values = sent[once].astype(np.float64)
        near = np.argsort(np.abs(values - np.median(values, axis=0)), axis=0)[:3]
        differ += not np.allclose(np.take_along_axis(values, near, 0).mean(0), aggregate(Bulyan(f=1), sent), rtol=1e-3)
    assert differ > 5


def test_bulyan_resists_f_and_falls_back_where_clients_are_few() -> None:
    rng = np.random.default_rng(0)
    for trial in range(10):
        sent = np.concatenate([rng.normal(size=(9, 5)), rng.normal(size=(2, 5)) * 1e5])[rng.permutation(11)]
        assert np.abs(aggregate(Bulyan(f=2), sent)).max() < 5, trial
    few = rng.normal(size=(6, 5))
    np.testing.assert_allclose(aggregate(Bulyan(f=2), few), few.mean(0), rtol=1e-5, atol=1e-6)
    assert Bulyan(f=2).min_cohort == 11
