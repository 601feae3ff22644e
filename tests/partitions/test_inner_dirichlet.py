"""Tests of `fedmem/partitions/inner_dirichlet.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.partitions.inner_dirichlet import InnerDirichlet
from tests.partitions.partitions_helpers import labelled


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 20),
    alpha=st.floats(1e-4, 100),
    sigma=st.sampled_from([0.0, 0.5, 3.0, 1000.0]),
    least=st.integers(1, 10),
)
def test_inner_dirichlet_gives_all_rows(seed: int, clients: int, alpha: float, sigma: float, least: int) -> None:
    rng = np.random.default_rng(seed)
    data = labelled(rng.choice(5, size=300, p=[0.6, 0.2, 0.1, 0.06, 0.04]))
    partition = InnerDirichlet(alpha=alpha, sigma=sigma, min_rows=least)
    parts = partition.assign(data, np.arange(300), clients, rng)
    sizes = [len(part) for part in parts]
    assert min(sizes) >= least
    assert sigma > 0 or max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(300))


def test_inner_dirichlet_mixes_have_the_stated_moments() -> None:
    """One client of two has nearly all rows, so that the other draws freely from its own mix."""
    targets = np.repeat(np.arange(3), 4000)
    data, sizes = labelled(targets), np.array([100, 11_900])
    alpha, repetitions = 0.8, 800
    draws = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        mixes = np.stack([rng.dirichlet(np.full(3, alpha)), np.full(3, 1 / 3)])
        counts = InnerDirichlet._counts(mixes, sizes, np.array([4000, 4000, 4000]), rng)
        assert counts.sum(axis=1).tolist() == sizes.tolist()
        assert counts.sum(axis=0).tolist() == [4000, 4000, 4000]
        draws.append(counts[0] / 100)
    # Mean and variance of a Dirichlet-multinomial share of 100 rows.
    mean = 1 / 3
    variance = mean * (1 - mean) / 100 * (100 + 3 * alpha) / (1 + 3 * alpha)
    np.testing.assert_allclose(np.mean(draws, axis=0), mean, atol=4.5 * np.sqrt(variance / repetitions))
    np.testing.assert_allclose(np.var(draws, axis=0), variance, rtol=0.15)
    assert not np.allclose(np.var(draws, axis=0), variance * 1.3, rtol=0.15)
    assert len(data.train) == sizes.sum()


def test_small_alpha_makes_inner_mixes_sharp() -> None:
    targets = np.repeat(np.arange(10), 100)

    def labels_held(alpha: float) -> float:
        parts = InnerDirichlet(alpha=alpha).assign(labelled(targets), np.arange(1000), 10, np.random.default_rng(0))
        counts = np.stack([np.bincount(targets[part], minlength=10) for part in parts]) / 100
        return float((1 / (counts**2).sum(axis=1)).mean())

    assert labels_held(0.02) < 3.5 < 7 < labels_held(100.0)
