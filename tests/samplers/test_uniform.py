"""Tests of `fedmem/samplers/uniform.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedmem.errors import ComponentError
from fedmem.samplers.uniform import Uniform
from tests.samplers.samplers_helpers import history, participation


def test_uniform_cohorts_have_fixed_size_and_equal_pairs() -> None:
    took = participation(Uniform(size=3), 6, 3000)
    assert set(took.sum(1).tolist()) == {3}
    pairs = (took.T.astype(int) @ took.astype(int))[np.triu_indices(6, 1)]
    # P(both) = K (K - 1) / (N (N - 1)) = 0.2
    assert min(stats.binomtest(int(count), 3000, 0.2).pvalue for count in pairs) > 1e-3
    assert max(stats.binomtest(int(count), 3000, 0.25).pvalue for count in pairs) < 1e-3


def test_uniform_can_take_all_but_no_more() -> None:
    assert Uniform(size=4).cohort(1, history(4), np.random.default_rng(0)).tolist() == [0, 1, 2, 3]
    with pytest.raises(ComponentError, match="a cohort of 5 out of 4 clients; use at most 4, or raise clients to 5"):
        Uniform(size=5).cohort(1, history(4), np.random.default_rng(0))
