"""Tests of `fedmem/samplers/oort.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.samplers.oort import Oort
from tests.samplers.guided_helpers import counts, known
from tests.samplers.samplers_helpers import agree


@pytest.mark.parametrize(("round_number", "new"), [(1, 6), (2, 5), (4, 3), (60, 2)])
def test_oort_explores_a_share_that_falls(round_number: int, new: int) -> None:
    """0.8^(r-1) of 6 places, at least a third; ten clients have trained, ten have not."""
    loss = np.r_[np.linspace(0.1, 1, 10), np.full(10, np.nan)]
    history = known([5] * 20, last_loss=loss, last_round=np.r_[np.ones(10, int), np.zeros(10, int)])
    sampler = Oort(size=6, exploration=1.0, decay=0.8, min_exploration=1 / 3)
    for seed in range(20):
        cohort = sampler.cohort(round_number, history, np.random.default_rng(seed))
        assert (cohort >= 10).sum() == new
        assert len(cohort) == 6


def test_oort_exploits_in_proportion_to_utility_above_its_cut() -> None:
    """One place: whoever has 95 % of the best utility may get it; rows times loss, scaled, and time since."""
    options: dict[str, Any] = {"size": 1, "exploration": 0.0, "min_exploration": 0.0}
    alike = known([10] * 4, last_loss=[1.0, 1.0, 1.0, 0.2], last_round=[1] * 4)
    assert agree(counts(Oort(**options), alike), 4000, [1 / 3, 1 / 3, 1 / 3, 0.0])
    larger = known([10, 10, 30, 10], last_loss=[1.0, 1.0, 0.5, 0.2], last_round=[1] * 4)
    assert counts(Oort(**options), larger) == [0, 0, 4000, 0], "rows count as well as losses"
    stale = known([10] * 3, last_loss=[1.0, 1.0, 1.0], last_round=[5, 1, 5])
    assert counts(Oort(**options), stale, round_number=6) == [0, 4000, 0]
    two = counts(Oort(**{**options, "size": 2}), known([10] * 3, last_loss=[1.0, 1.0, 0.0], last_round=[1] * 3))
    assert two == [4000, 4000, 0]


def test_oort_does_not_run_after_outliers() -> None:
    """Utilities above the 95 % quantile count alike: of a hundred, the two largest are as good as the third."""
    loss = np.r_[np.full(94, 0.01), np.full(4, 1.0), 1e6, 1e9]
    history = known([10] * 100, last_loss=loss, last_round=np.ones(100, int))
    found = np.array(counts(Oort(size=1, exploration=0.0, min_exploration=0.0), history, times=3000))
    assert found[:94].sum() == 0
    assert agree(found[94:].tolist(), 3000, [1 / 6] * 6)
