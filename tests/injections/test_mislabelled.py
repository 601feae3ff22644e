"""Tests of `fedmem/injections/mislabelled.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from fedmem.contracts.data import ClientData
from fedmem.contracts.reserve import Reserve
from fedmem.injections.mislabelled import Mislabelled
from tests.injections.injections_helpers import CLASSES, SPACE, rows, skewed


def test_mislabelled_rows_have_any_other_label_equally_often() -> None:
    reserve = rows(np.arange(4000) % CLASSES)
    injected = Mislabelled(per_client=900).plan(skewed(8), Reserve(reserve), SPACE, np.random.default_rng(0))
    true = reserve.targets[injected.examples.ids]
    assert set(true[injected.owner == 0].tolist()) == {0}
    assert not np.any(injected.examples.targets == true)
    counts = np.bincount((injected.examples.targets - true) % CLASSES, minlength=CLASSES)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3
    assert stats.chisquare(counts[1:], counts.sum() * np.array([0.4, 0.3, 0.3])).pvalue < 1e-3


def test_mislabelled_with_two_classes_flips() -> None:
    injected = Mislabelled(per_client=5).plan(
        [ClientData(client=0, examples=rows(np.array([0, 1])))],
        Reserve(rows(np.arange(20) % 2)),
        replace(SPACE, num_classes=2),
        np.random.default_rng(0),
    )
    np.testing.assert_array_equal(injected.examples.targets, 1 - injected.examples.ids % 2)
