"""Tests of `fedmem/partitions/quantity_skew.py`."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.partitions.quantity_skew import QuantitySkew
from tests.partitions.partitions_helpers import labelled


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 20),
    law=st.sampled_from(["dirichlet", "power"]),
    alpha=st.floats(1e-3, 50),
    least=st.integers(1, 15),
)
def test_quantity_skew_gives_every_client_min_rows(
    seed: int, clients: int, law: Literal["dirichlet", "power"], alpha: float, least: int
) -> None:
    data = labelled(np.zeros(300, np.int64))
    skew = QuantitySkew(law=law, alpha=alpha, min_rows=least)
    parts = skew.assign(data, np.arange(300), clients, np.random.default_rng(seed))
    assert min(len(part) for part in parts) >= least
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(300))


def test_the_power_law_is_a_power_law() -> None:
    data = labelled(np.zeros(100_000, np.int64))
    skew = QuantitySkew(law="power", alpha=1.2, min_rows=1)
    sizes = [sorted(map(len, skew.assign(data, np.arange(100_000), 6, np.random.default_rng(s)))) for s in range(3)]
    assert sizes[0] == sizes[1] == sizes[2]
    slope = np.polyfit(np.log(np.arange(1, 7)), np.log(sizes[0][::-1]), 1)[0]
    assert slope == pytest.approx(-1.2, abs=0.01)


def test_dirichlet_sizes_have_the_moments_of_a_dirichlet() -> None:
    data = labelled(np.zeros(2000, np.int64))
    for alpha, fits in ((0.7, True), (1.4, False)):
        skew = QuantitySkew(alpha=alpha, min_rows=1)
        draws = [list(map(len, skew.assign(data, np.arange(2000), 4, np.random.default_rng(s)))) for s in range(600)]
        variance = (1 / 4) * (3 / 4) / (4 * 0.7 + 1)
        assert (np.var(np.array(draws) / 2000, axis=0).mean() == pytest.approx(variance, rel=0.1)) == fits
