"""Tests of `strategies/sign_majority.py`."""

from __future__ import annotations

import numpy as np

from fedmem.strategies.sign_majority import SignMajority
from tests.strategies.strategies_helpers import aggregate


def test_votes_are_counted_coordinate_by_coordinate() -> None:
    rng = np.random.default_rng(5)
    sent, before = rng.integers(-1, 2, size=(6, 40)).astype(float), np.zeros(40)
    got = aggregate(SignMajority(server_lr=0.25), sent, before=before, sizes=[99, 1, 1, 1, 1, 1])
    expected = [0.25 * np.sign(sum(column > 0) - sum(column < 0)) for column in sent.T]
    assert got.tolist() == expected
    assert {-0.25, 0.0, 0.25} == set(got.tolist())


def test_length_buys_no_votes() -> None:
    assert aggregate(SignMajority(server_lr=1.0), [[1e6], [-1e-6], [-1e-6]], before=[0.0]).tolist() == [-1.0]
