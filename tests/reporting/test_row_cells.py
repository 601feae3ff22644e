"""Tests of `fedmem/reporting/row_cells.py`."""

from __future__ import annotations

from dataclasses import replace

from fedmem.contracts.measure import Measure
from fedmem.reporting.cells import Value
from fedmem.reporting.measures import Variant
from fedmem.reporting.row_cells import count_cell, value_cell

VALUE = Value(value=0.5, low=0.4, high=0.6, n=80, fpr=0.01)
RATE = Variant(
    measure=Measure(name="hits", title="hits", means="Share.", unit="share", range=(0.0, 1.0), digits=2),
    title="hits",
    null=0.1,
)


def test_missing_value_is_a_dash() -> None:
    assert value_cell(None, RATE) == "–"


def test_rate_with_a_wide_interval_is_marked_as_approximate() -> None:
    assert value_cell(VALUE, RATE) == "0.50 [0.40, 0.60]"
    assert value_cell(replace(VALUE, low=0.1, high=0.9), RATE).startswith("≈0.5 [")


def test_false_positive_rate_is_shown_where_nulls_differ() -> None:
    assert value_cell(VALUE, replace(RATE, null=float("nan"))).endswith(" @ 0.01")


def test_counts_are_one_number_if_equal_else_one_each() -> None:
    assert count_cell(VALUE, None, VALUE) == "80"
    assert count_cell(VALUE, replace(VALUE, n=7)) == "80/7"
