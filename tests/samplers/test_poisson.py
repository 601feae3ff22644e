"""Tests of `fedmem/samplers/poisson.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedmem.samplers.poisson import Poisson
from tests.samplers.samplers_helpers import history, participation


def test_poisson_clients_decide_independently() -> None:
    took = participation(Poisson(rate=0.3), 6, 3000)
    pairs = (took.T.astype(int) @ took.astype(int))[np.triu_indices(6, 1)]
    assert min(stats.binomtest(int(count), 3000, 0.09).pvalue for count in pairs) > 1e-3
    assert took.sum(1).var() == pytest.approx(6 * 0.3 * 0.7, rel=0.1)


def test_poisson_cohorts_may_be_empty() -> None:
    empty = (participation(Poisson(rate=0.1), 5, 2000).sum(1) == 0).sum()
    assert stats.binomtest(int(empty), 2000, 0.9**5).pvalue > 1e-3
    cohort = Poisson(rate=1e-12).cohort(1, history(5), np.random.default_rng(0))
    assert cohort.shape == (0,)
    assert cohort.dtype == np.int64
