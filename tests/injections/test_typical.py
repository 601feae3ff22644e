"""Tests of `fedmem/injections/typical.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.injections.typical import Typical
from tests.injections.injections_helpers import CLASSES, SPACE, rows, skewed


def test_typical_rows_are_unaltered_with_the_owners_label_shares() -> None:
    reserve = rows(np.arange(4000) % CLASSES)
    injected = Typical(per_client=400).plan(skewed(8), Reserve(reserve), SPACE, np.random.default_rng(0))
    kept = reserve.take(injected.examples.ids)
    np.testing.assert_array_equal(injected.examples.inputs, kept.inputs)
    np.testing.assert_array_equal(injected.examples.targets, kept.targets)
    assert set(kept.targets[injected.owner == 0].tolist()) == {0}
    counts = np.bincount(kept.targets[injected.owner == 1], minlength=CLASSES)
    assert counts[0] == counts[3] == 0
    assert stats.binomtest(int(counts[1]), 400, 0.75).pvalue > 1e-3
    assert stats.binomtest(int(counts[1]), 400, 0.5).pvalue < 1e-3


def test_too_few_reserve_rows_are_an_error() -> None:
    with pytest.raises(ComponentError, match=r"\b4 rows .*\b3 are left"):
        Typical(per_client=4).plan(skewed(8)[:1], Reserve(rows(np.zeros(3, np.int64))), SPACE, np.random.default_rng(0))
