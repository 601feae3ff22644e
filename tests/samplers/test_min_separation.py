"""Tests of `fedmem/samplers/min_separation.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.errors import ComponentError
from fedmem.samplers.min_separation import MinSeparation
from tests.samplers.samplers_helpers import agree, history, participation


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 4), separation=st.integers(1, 5), spare=st.integers(0, 5))
def test_min_separation_holds_between_participations(size: int, separation: int, spare: int) -> None:
    took = participation(MinSeparation(size=size, separation=separation), size * separation + spare, 25)
    assert set(took.sum(1).tolist()) == {size}
    gaps = [np.diff(np.flatnonzero(client)) for client in took.T]
    assert min((int(gap.min()) for gap in gaps if len(gap)), default=separation) >= separation
    if not spare:
        assert all((gap == separation).all() for gap in gaps)


def test_min_separation_of_one_is_uniform_and_of_two_is_not() -> None:
    took = participation(MinSeparation(size=2, separation=1), 6, 3000)
    again = (took[1:] & took[:-1]).sum()
    assert stats.binomtest(int(again), 6 * 2999, 1 / 9).pvalue > 1e-3
    apart = participation(MinSeparation(size=2, separation=2), 6, 3000)
    assert not (apart[1:] & apart[:-1]).any()
    assert agree(apart.sum(0).tolist(), 3000, [1 / 3] * 6)


def test_min_separation_refuses_too_few_clients() -> None:
    with pytest.raises(ComponentError, match=r"3 in each of 2 rounds are 6 different clients, but there are 5"):
        MinSeparation(size=3, separation=2).cohort(1, history(5), np.random.default_rng(0))
