"""Tests of `fedmem/contracts/series.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.estimation.series import series_of
from tests.banks import make_bank


def test_diverged_and_hidden_examples_have_no_values() -> None:
    bank = make_bank(runs=4, rounds=(0, 1, 2))
    lost = tuple(
        replace(e, margin=np.where((e.run == 3)[:, None], np.nan, e.margin)) if e.set == "audit" else e
        for e in bank.evidence
    )
    found = series_of(replace(bank, evidence=lost))["global", ""]
    assert np.isnan(found.correct()[:, 3]).all()
    assert not np.isnan(found.correct()[:, :3]).any()
    hidden = np.arange(len(bank.audit)) < 2
    np.testing.assert_array_equal(np.isnan(found.hide(hidden).loss()[:, 0]).all(0), hidden)


@pytest.mark.parametrize(("rounds", "step"), [((1, 2, 3), 1), ((5, 10), 5), ((4, 8, 10), None), ((7,), None)])
def test_step_is_that_of_even_rounds(rounds: tuple[int, ...], step: int | None) -> None:
    assert series_of(make_bank(runs=2, rounds=(0, *rounds)))["global", ""].step == step
