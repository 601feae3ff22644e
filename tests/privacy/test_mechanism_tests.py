"""Tests of `fedmem/privacy/mechanism_tests.py`."""

from __future__ import annotations

import numpy as np

from fedmem.privacy.mechanism_tests import batch_statistics, p_of_mean, p_of_pairs, p_of_variance, projections
from tests.probes.mechanism_helpers import release


def test_p_values_are_uniform_under_the_stated_mechanism() -> None:
    rng = np.random.default_rng(1)
    found: dict[str, list[float]] = {}
    for _ in range(400):
        one, other = release(rng), release(rng)
        inside, dimension = one.in_span(rng)
        assert dimension == 6
        found.setdefault("variance", []).append(p_of_variance([float(np.mean(one.noise**2))], [500]))
        found.setdefault("span", []).append(p_of_variance([inside], [dimension]))
        for name, direction in one.directions.items():
            found.setdefault(name, []).append(p_of_mean(np.array([one.noise @ direction])))
        pair = (projections(each.noise, np.random.default_rng(5))[None] for each in (one, other))
        found.setdefault("pairs", []).append(p_of_pairs(*pair))
        members = rng.random((6, 300)) < 0.2
        for name, score in batch_statistics(members, 0.2).items():
            found.setdefault(name, []).append(p_of_mean(np.array([score])))
    assert len(found) == 8
    for name, values in found.items():
        # the law of sums of counts is nearly normal
        assert abs(np.mean(np.array(values) < 0.05) - 0.05) < 0.035, name
        assert 0.42 < np.mean(values) < 0.58, name


def test_no_batches_are_drawn_at_rates_zero_and_one() -> None:
    assert not batch_statistics(np.ones((3, 4), dtype=bool), 1.0)
    assert not batch_statistics(np.zeros((0, 4), dtype=bool), 0.5)
    assert set(batch_statistics(np.zeros((1, 4), dtype=bool), 0.5)) == {"size", "spread"}


def test_batches_of_a_fixed_size_are_no_poisson_batches() -> None:
    rng = np.random.default_rng(2)
    members = np.zeros((40, 200), dtype=bool)
    for row in members:
        row[rng.choice(200, 40, replace=False)] = True
    found = batch_statistics(members, 0.2)
    assert abs(found["size"]) < 1e-9
    assert found["spread"] < -4
