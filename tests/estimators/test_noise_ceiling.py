"""Tests of `fedmem/estimators/noise_ceiling.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import View
from fedmem.contracts.measurement import Labels
from fedmem.estimators.noise_ceiling import NoiseCeiling, components
from tests.banks import coins, make_view

OWN, OTHERS, NOISE = 0.5, 0.3, 0.4
"""In minus out, and the standard deviations between coin rows and between twins."""


def planted(seed: int, *, rows: int = 16, m: int = 20, twins: int = 2) -> tuple[FloatArray, BoolArray]:
    rng = np.random.default_rng(seed)
    is_in = coins(rows, m, rng)
    of_rows = OWN * is_in + OTHERS * rng.normal(size=(rows, m))
    return of_rows + NOISE * rng.normal(size=(twins, rows, m)), is_in


@pytest.mark.parametrize("twins", [2, 3])
def test_parts_of_the_variance_have_no_bias(twins: int) -> None:
    found = np.array([components(*planted(seed, twins=twins)) for seed in range(200)]) / 20
    error = found.std(0) / np.sqrt(200)
    np.testing.assert_array_less(np.abs(found.mean(0) - [OWN**2 / 4, OTHERS**2, NOISE**2]), 4 * error)
    assert (4 * error < 0.02).all()


def view_of(values: FloatArray, is_in: BoolArray, order: IntArray) -> View:
    """Probabilities near 1/2 that move by a tenth of the values, with the runs in another order."""
    twins, rows, m = values.shape
    margin = 4 * np.arctanh(np.clip(0.1 * values.reshape(-1, m), -0.9, 0.9))
    coin_row = np.tile(np.arange(rows), twins)
    view = make_view(margin[order], np.tile(is_in, (twins, 1))[order], kind=["typical"] * m, round_number=None, draws=0)
    return replace(view, audit=replace(view.audit, coin_row=coin_row[order]))


def test_shares_give_the_ceiling_in_any_order_of_runs() -> None:
    values, is_in = planted(0, m=60)
    first, other = (
        {(r.metric, r.labels): r for _, r in NoiseCeiling().tests(view_of(values, is_in, order))}
        for order in (np.arange(32), np.random.default_rng(0).permutation(32))
    )
    of = Labels.of(of="probability")
    shares = [first["variance_share", of.plus(part=part)].value for part in ("own", "others", "noise")]
    whole = OWN**2 / 4 + OTHERS**2 + NOISE**2
    assert sum(shares) == pytest.approx(1.0)
    assert shares == pytest.approx([OWN**2 / 4 / whole, OTHERS**2 / whole, NOISE**2 / whole], abs=0.06)
    ceiling = first["noise_ceiling", of]
    assert ceiling.value == pytest.approx(np.sqrt(1 - shares[2]))
    assert ceiling.low < np.sqrt(1 - NOISE**2 / whole) < ceiling.high
    assert {key: r.value for key, r in first.items()} == pytest.approx({key: r.value for key, r in other.items()})


def test_other_rounds_have_none() -> None:
    values, is_in = planted(0)
    assert not NoiseCeiling().tests(replace(view_of(values, is_in, np.arange(32)), round=1))
