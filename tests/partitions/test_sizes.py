"""Tests of `fedmem/partitions/_sizes.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedmem.partitions._sizes import apportion


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(lambda values: sum(values) > 0),
    least=st.integers(0, 5),
    rest=st.integers(0, 500),
)
def test_apportioned_sizes_add_up_and_are_near_the_exact_ones(weights: list[float], least: int, rest: int) -> None:
    sizes = apportion(np.array(weights), rest + least * len(weights), least)
    assert sizes.sum() == rest + least * len(weights)
    assert sizes.min() >= least
    exact = np.array(weights) / sum(weights) * rest
    assert np.abs(sizes - least - exact).max() <= 1 + 1e-6
