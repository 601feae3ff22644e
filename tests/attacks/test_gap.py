"""Tests of `fedmem/attacks/gap.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.gap import Gap
from fedmem.contracts.attack import Signals
from tests.attacks.membership_helpers import everything
from tests.banks import coins


def test_auc_follows_from_the_gap_of_accuracies() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(8, 30, rng)
    correct = (rng.random((8, 30)) < np.where(is_in, 0.9, 0.6)).astype(np.float64)
    # the margin says otherwise: of many classes the label can win with a negative one
    whole = Signals(margin=rng.normal(size=(8, 30)), is_in=is_in, correct=correct)
    gap = correct[is_in].mean() - correct[~is_in].mean()
    assert everything(Gap().scores(whole), is_in) == pytest.approx(0.5 + gap / 2)
    assert gap > 0.2


def test_nothing_is_scored_where_nothing_is_known() -> None:
    margin = np.array([[1.0, np.nan]])
    assert np.isnan(Gap().scores(Signals(margin=margin, is_in=margin > 0))).all()
    found = Gap().scores(Signals(margin=margin, is_in=margin > 0, correct=np.ones((1, 2))))
    assert found[0, 0] == 1
    assert np.isnan(found[0, 1])
