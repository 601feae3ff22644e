"""Tests of `strategies/multikrum.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.strategies.multikrum import MultiKrum
from tests.strategies.strategies_helpers import aggregate


def test_multikrum_ignores_numbers_of_rows() -> None:
    sent = np.random.default_rng(2).normal(size=(5, 3))
    for keep in (1, 3):
        plain, weighted = (aggregate(MultiKrum(keep=keep), sent, sizes=s) for s in ([1] * 5, [1, 99, 5, 7, 30]))
        assert np.array_equal(plain, weighted)


@pytest.mark.parametrize(("places", "f", "kept"), [(9, 1, 4), (9, 2, 2), (9, 3, 1), (3, 1, 1), (1, 0, 1)])
def test_multikrum_keeps_as_many_as_the_proof_allows(places: int, f: int, kept: int) -> None:
    sent = np.random.default_rng(places + f).normal(size=(places, 4))
    assert np.array_equal(aggregate(MultiKrum(f=f), sent), aggregate(MultiKrum(f=f, keep=kept), sent))
