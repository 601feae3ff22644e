"""Tests of `fedmem/samplers/clustered.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.samplers.clustered import Clustered
from tests.samplers.guided_helpers import known


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=7), data=st.data())
def test_clusters_are_the_rows_laid_end_to_end(sizes: list[int], data: st.DataObject) -> None:
    """Naive: every row as K pieces, one after the other, cut into K parts of n; the share of each client in each."""
    size = data.draw(st.integers(1, len(sizes)))
    order = sorted(range(len(sizes)), key=lambda client: -sizes[client])
    pieces = np.array([client for client in order for _ in range(sizes[client] * size)])
    shares = np.array([[np.mean(part == k) for k in range(len(sizes))] for part in np.split(pieces, size)])
    np.testing.assert_allclose(shares.sum(0), size * np.array(sizes) / sum(sizes), atol=1e-12)
    truth = 1 - np.prod(1 - shares, axis=0)
    np.testing.assert_allclose(Clustered(size=size).probabilities(1, known(sizes)), truth, atol=1e-12)


def test_one_of_each_cluster_takes_part() -> None:
    """Four clusters of two clients each: never both of a pair, which K draws with replacement would give."""
    history = known([8, 7, 6, 5, 4, 3, 2, 1])
    even = known([5] * 8)
    for seed in range(50):
        assert len(Clustered(size=3).cohort(1, history, np.random.default_rng(seed))) <= 3
        cohort = Clustered(size=4).cohort(1, even, np.random.default_rng(seed))
        assert sorted(client // 2 for client in cohort.tolist()) == [0, 1, 2, 3]
