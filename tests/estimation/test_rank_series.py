"""Tests of `fedmem/estimation/rank_series.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.rank_series import exposures_of
from fedmem.estimation.views import views
from tests.banks import make_bank


@pytest.mark.parametrize("place", ["", "owner"])
def test_exposures_are_those_of_the_views_of_each_round(place: str) -> None:
    bank = make_bank()
    redeals = permute_coins(bank.audit, 0, np.random.default_rng(0))
    seen = 0
    for view in views(bank, redeals):
        if view.place != place or not view.round or view.series is None:
            continue
        bits = exposures_of(view)
        assert bits is not None
        position = view.series.rounds.tolist().index(view.round)
        with np.errstate(divide="ignore"):
            expected = np.log2((view.references + 1) / view.rank[:, 0])
        shown = view.series.observed[position, 0]
        np.testing.assert_allclose(bits[position][:, shown], expected[:, shown])
        seen += int((~np.isnan(bits[position])).sum())
    assert seen > 50


def test_there_are_none_without_canaries() -> None:
    bank = make_bank(kinds=("typical",))
    redeals = permute_coins(bank.audit, 0, np.random.default_rng(0))
    assert all(exposures_of(view) is None for view in views(bank, redeals))
