"""Tests of `fedmem/samplers/optimal.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.errors import ScenarioError
from fedmem.samplers.optimal import Optimal
from tests.samplers.guided_helpers import known
from tests.tiny import tiny


@settings(max_examples=60, deadline=None)
@given(data=st.data(), clients=st.integers(1, 9), seed=st.integers(0, 99))
def test_optimal_has_the_smallest_variance_for_its_cohort(data: st.DataObject, clients: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    expected = data.draw(st.floats(0.1, float(clients)))
    sizes, norms = rng.integers(1, 50, clients), rng.lognormal(sigma=1.5, size=clients)
    chances = Optimal(expected=expected).probabilities(2, known(sizes.tolist(), last_norm=norms))
    assert chances.sum() == pytest.approx(expected)
    weights = sizes * norms

    def variance(p: np.ndarray) -> float:
        return float((weights**2 * (1 / p - 1)).sum())

    for _ in range(20):
        other = rng.dirichlet(np.ones(clients)) * expected
        for _ in range(clients):  # what exceeds 1 goes to the others
            free = other < 1
            excess = (other[~free] - 1).sum()
            other = np.minimum(other, 1)
            if free.any():
                other[free] += excess / free.sum()
        mixed = 0.9 * chances + 0.1 * np.minimum(other, 1)
        if mixed.sum() <= expected + 1e-9:
            assert variance(chances) <= variance(mixed) * (1 + 1e-9) + 1e-9


def test_optimal_gives_unknown_norms_the_mean() -> None:
    chances = Optimal(expected=1.5).probabilities(2, known([10] * 4, last_norm=[1.0, np.nan, 3.0, 2.0]))
    assert chances[1] == pytest.approx(chances[3])
    assert Optimal(expected=1.5).probabilities(1, known([10] * 4)).tolist() == [0.375] * 4
    still = Optimal(expected=2.0).probabilities(2, known([10] * 4, last_norm=[0.0, 0.0, 7.0, 0.0]))
    assert still.tolist() == pytest.approx([1 / 3, 1 / 3, 1, 1 / 3])
    with pytest.raises(ScenarioError, match="a cohort of 6 cannot be drawn from 5 clients"):
        tiny(sampler={"kind": "optimal", "expected": 6}, roster="pilot")
