"""Tests of `fedmem/estimation/quantities.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.contracts.estimator import Estimator
from fedmem.estimation.quantities import with_quantities
from fedmem.estimation.signal_means import SignalMeans
from fedmem.estimators.agreement import Agreement
from fedmem.estimators.consistency import Consistency
from fedmem.estimators.memorisation import Memorisation
from fedmem.signals.el2n import El2n
from tests.banks import coins, make_view


def test_quantities_come_from_all_that_give_some() -> None:
    rng = np.random.default_rng(0)
    view = make_view(rng.normal(size=(16, 6)), coins(16, 6, rng), round_number=None)
    view = replace(view, signals={"el2n": view.margin})
    estimators: list[Estimator] = [Memorisation(), Consistency(), SignalMeans(signal=El2n()), Agreement()]
    (found,) = with_quantities([view], estimators)
    assert [quantity.metric for quantity in found.quantities] == ["consistency", "el2n"]
    assert with_quantities([view], estimators[:3]) == [view]
