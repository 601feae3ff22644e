"""Tests of `fedmem/samplers/everyone.py`."""

from __future__ import annotations

import numpy as np

from fedmem.samplers.everyone import Everyone
from tests.samplers.samplers_helpers import history, participation


def test_everyone_is_everyone() -> None:
    assert Everyone().cohort(7, history(1), np.random.default_rng(0)).tolist() == [0]
    assert participation(Everyone(), 5, 3).all()
