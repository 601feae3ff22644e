"""Tests of `fedmem/samplers/update_aware.py`."""

from __future__ import annotations

import numpy as np

from fedmem.samplers.update_aware import UpdateAware
from tests.samplers.guided_helpers import counts, known
from tests.samplers.samplers_helpers import agree


def test_update_aware_takes_new_clients_then_the_largest() -> None:
    norms = [0.1, np.nan, 3.0, 2.0, np.nan, 0.0]
    for size, truth in ((2, {1, 4}), (3, {1, 4, 2}), (4, {1, 4, 2, 3}), (5, {1, 4, 2, 3, 0})):
        cohort = UpdateAware(size=size).cohort(9, known([5] * 6, last_norm=norms), np.random.default_rng(0))
        assert set(cohort.tolist()) == truth
    ties = counts(UpdateAware(size=2), known([5] * 4, last_norm=[1.0, 2.0, 1.0, 1.0]))
    assert agree(ties, 4000, [1 / 3, 1.0, 1 / 3, 1 / 3])
