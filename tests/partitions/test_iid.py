"""Tests of `fedmem/partitions/iid.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.partitions.iid import IID
from tests.partitions.partitions_helpers import labelled


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 30), count=st.integers(30, 200))
def test_iid_is_complete_and_even(seed: int, clients: int, count: int) -> None:
    data = labelled(np.zeros(count, np.int64))
    parts = IID().assign(data, np.arange(count), clients, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
