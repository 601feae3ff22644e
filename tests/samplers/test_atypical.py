"""Tests of `fedmem/samplers/atypical.py`."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fedmem.contracts.sampler import History
from fedmem.samplers.atypical import Atypical
from tests.samplers.samplers_helpers import agree, participation


def successive(weights: np.ndarray, size: int) -> np.ndarray:
    """Inclusion probabilities of drawing one after the other without replacement, by enumeration."""
    found = np.zeros(len(weights))
    for order in permutations(range(len(weights)), size):
        left, chance = weights.sum(), 1.0
        for client in order:
            chance *= weights[client] / left
            left -= weights[client]
        found[list(order)] += chance
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
def test_atypical_inclusion_equals_successive_weighted_draws(size: int) -> None:
    slots = np.array([0, 0, 1, 3, 6])
    weights = np.exp(0.8 * (slots - slots.mean()) / slots.std())
    counts = participation(Atypical(size=size, beta=0.8), History.start([9] * 5, slots), 4000).sum(0).tolist()
    assert agree(counts, 4000, successive(weights, size).tolist())
    assert not agree(counts, 4000, successive(1 / weights, size).tolist())
    assert not agree(counts, 4000, successive(np.ones(5), size).tolist())


@pytest.mark.parametrize("size", [1, 3, 8])
def test_atypical_takes_the_largest_sums_as_sorting_would(size: int) -> None:
    known = History.start([9] * 8, atypical=[0, 0, 1, 5, 2, 2, 0, 9])
    for seed in range(20):
        keys = np.random.default_rng(seed).gumbel(size=8)
        keys += 1.5 * (known.atypical - known.atypical.mean()) / known.atypical.std()
        cohort = Atypical(size=size, beta=1.5).cohort(1, known, np.random.default_rng(seed))
        assert cohort.tolist() == sorted(np.argsort(-keys)[:size].tolist())


def test_atypical_prefers_more_copies_and_more_so_with_beta() -> None:
    known = History.start([9] * 6, [0, 1, 2, 3, 4, 5])
    shares = [participation(Atypical(size=2, beta=beta), known, 4000).mean(0) for beta in (0.0, 0.5, 1.0, 2.0)]
    assert all(np.all(np.diff(share) > 0) for share in shares[1:])
    assert np.all(np.diff([share[5] for share in shares]) > 0)
    assert np.all(np.diff([share[0] for share in shares]) < 0)


def test_atypical_at_zero_beta_or_equal_copies_is_uniform() -> None:
    for beta, slots in ((0.0, [0, 7, 2, 90, 1, 1]), (3.0, [4] * 6), (3.0, [0] * 6)):
        sampler, known = Atypical(size=3, beta=beta), History.start([9] * 6, slots)
        plain = History.start([9] * 6)
        for seed in range(30):
            drawn, blind = (sampler.cohort(1, h, np.random.default_rng(seed)).tolist() for h in (known, plain))
            assert drawn == blind
        took = participation(sampler, known, 3000)
        pairs = (took.T.astype(int) @ took.astype(int))[np.triu_indices(6, 1)]
        assert agree(pairs.tolist(), 3000, [0.2] * 15)


def test_atypical_does_not_depend_on_the_scale_of_copies() -> None:
    """Standardised: ten times the copies draw the same cohorts."""
    few, many = (History.start([9] * 6, np.array([0, 1, 2, 3, 4, 5]) * factor) for factor in (1, 10))
    for seed in range(30):
        one, other = (Atypical(size=2).cohort(1, h, np.random.default_rng(seed)).tolist() for h in (few, many))
        assert one == other
