"""Tests of `strategies/krum.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.strategies.krum import Krum
from fedmem.strategies.multikrum import MultiKrum
from tests.strategies.strategies_helpers import aggregate, naive_scores


@settings(max_examples=60, deadline=None)
@given(places=st.integers(3, 9), f=st.integers(0, 3), keep=st.integers(1, 4), seed=st.integers(0, 99))
def test_krum_is_the_naive_one(places: int, f: int, keep: int, seed: int) -> None:
    sent = np.random.default_rng(seed).normal(size=(places, 6)).astype(np.float32)
    scores = naive_scores(sent, max(1, places - f - 2))
    best = sorted(range(places), key=lambda k: (scores[k], k))[:keep]
    got = aggregate(MultiKrum(f=f, keep=keep), sent)
    np.testing.assert_allclose(got, sent[best].mean(0), rtol=1e-5, atol=1e-6)
    if keep == 1:
        assert np.array_equal(got, sent[best[0]])
        assert np.array_equal(got, aggregate(Krum(f=f), sent))


def test_krum_scores_the_stated_number_of_neighbours() -> None:
    """Four in a row and a tight pair far off: with one neighbour the pair would win, with all of them the middle."""
    sent = np.array([[0.0], [1.0], [2.1], [3.0], [50.0], [50.1]])
    chosen = {n: int(np.argmin(naive_scores(sent, n))) for n in (1, 3, 5)}
    assert len(set(chosen.values())) == 3
    assert aggregate(Krum(f=1), sent) == np.float32(sent[chosen[3]])


def test_up_to_f_wild_clients_are_never_chosen() -> None:
    rng = np.random.default_rng(0)
    for trial in range(20):
        honest, wild = rng.normal(size=(5, 8)), rng.normal(size=(2, 8)) * 100
        sent = np.concatenate([honest, wild])[rng.permutation(7)].astype(np.float32)
        got = aggregate(Krum(f=2), sent)
        assert np.abs(got).max() < 10, trial


def test_few_clients_are_decided() -> None:
    assert aggregate(Krum(f=2), [[4.0, 5.0]]).tolist() == [4.0, 5.0]
    # the nearest pair of three always ties: the lower number goes first, wherever it stands
    sent = [[0.0], [10.0], [1.0]]
    assert aggregate(Krum(), sent).tolist() == [0.0]
    assert aggregate(Krum(), [sent[2], sent[0], sent[1]], clients=[2, 0, 1]).tolist() == [0.0]
    assert aggregate(Krum(), sent, clients=[7, 3, 2]).tolist() == [1.0]
    assert aggregate(MultiKrum(keep=9), sent)[0] == pytest.approx(11 / 3)


def test_non_finite_models_are_never_chosen() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        sent = [[bad, 0.0], [1.0, 1.0], [1.5, 1.0], [3.0, 1.0], [1.2, 1.0]]
        assert np.isfinite(aggregate(Krum(f=1), sent)).all()
        assert np.isfinite(aggregate(MultiKrum(f=1, keep=3), sent)).all()
