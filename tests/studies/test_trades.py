"""Tests of `fedmem/studies/trades.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.studies.quantities import Quantity, Series
from fedmem.studies.trades import trades_of
from tests.labelling import labels

SCATTER = np.array([-1.0, 1.0, -0.5, 0.5, -0.2, 0.2])
HARM = Quantity(metric="memorisation", labels=labels(), kind="a", level="global", title="memorisation", headline=True)
USE = replace(HARM, metric="test_accuracy", kind="", title="accuracy")


def series(quantity: Quantity, means: list[float], scatter: float, null: float = math.nan) -> Series:
    """Settings with these means over six seeds."""
    values: FloatArray = np.array(means)[:, None] + scatter * np.stack(
        [np.roll(SCATTER, place) for place in range(len(means))]
    )
    unknown = np.full(values.shape, np.nan)
    arrays: dict[str, Any] = {"values": values, "n": np.full(values.shape, 10.0), "fpr": unknown, "paired": unknown}
    return Series(quantity=quantity, rounds={}, null=np.full(values.shape, null), paired_null=unknown, **arrays)


@pytest.mark.parametrize(("null", "front"), [(0.0, [0]), (math.nan, [0, 1])])
def test_less_than_none_is_none(null: float, front: list[int]) -> None:
    """Half the accuracy and memorisation below the null is no trade-off; without a null the lower value counts."""
    trades = trades_of(series(USE, [0.94, 0.46], 0.01), series(HARM, [0.0, -0.033], 0.03, null), 0.05)
    assert [trade.setting for trade in trades if trade.better < 0] == front


def test_a_rival_is_ahead_in_one_and_not_behind_in_the_other() -> None:
    """Setting 1 has less of the measure by noise alone; that of setting 2 is significantly less."""
    trades = trades_of(series(USE, [0.9, 0.5, 0.4], 0.01), series(HARM, [0.41, 0.4, 0.1], 0.03, 0.0), 0.05)
    assert [(trade.better, trade.rival) for trade in trades] == [(-1, -1), (-1, 0), (-1, -1)]


def test_equal_to_none_is_not_behind_even_if_raw_values_differ() -> None:
    trades = trades_of(series(USE, [0.9, 0.9005], 0.05), series(HARM, [-0.1, -0.4], 0.01, 0.0), 0.05)
    assert [trade.better for trade in trades] == [1, -1]
    assert not trades[0].sure
    assert trades[1].rival == -1


@pytest.mark.parametrize(("harms", "is_sure"), [([-0.1, -0.4], False), ([0.1, 0.4], True)])
def test_a_lower_value_below_none_makes_nothing_sure(harms: list[float], is_sure: bool) -> None:
    """Setting 0 has significantly more accuracy; of two values below none, its raw one is significantly higher."""
    trades = trades_of(series(USE, [0.9, 0.5], 0.01), series(HARM, harms, 0.01, 0.0), 0.05)
    assert (trades[1].better, trades[1].sure) == (0, is_sure)


def test_a_collapsed_setting_is_marked_as_learning_less() -> None:
    """Below three quarters of the best accuracy, an end of the front is no merit; just above, it is a trade-off."""
    trades = trades_of(series(USE, [0.93, 0.438, 0.71], 0.001), series(HARM, [0.4, 0.0, 0.2], 0.01, 0.0), 0.05)
    assert [trade.better for trade in trades] == [-1, -1, -1]
    assert [trade.learns_less for trade in trades] == [False, True, False]


@pytest.mark.parametrize(("constant", "marked"), [(0.5, [False, True, False]), (math.nan, [False, False, False])])
def test_accuracy_counts_above_the_most_frequent_answer(constant: float, marked: list[bool]) -> None:
    """With two classes .50 is nothing learnt, though it is above three quarters of .62; that needs a stored answer."""
    use, harm = series(USE, [0.62, 0.50, 0.60], 0.001), series(HARM, [0.4, 0.0, 0.2], 0.01, 0.0)
    trades = trades_of(use, harm, 0.05, np.full((3, 6), constant))
    assert [trade.learns_less for trade in trades] == marked


def test_where_nobody_learns_nobody_learns_far_less() -> None:
    use, harm = series(USE, [0.49, 0.40], 0.001), series(HARM, [0.4, 0.0], 0.01, 0.0)
    assert not any(trade.learns_less for trade in trades_of(use, harm, 0.05, np.full((2, 6), 0.5)))
