"""Tests of `fedmem/signals/_sensitive_column.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.errors import ComponentError
from fedmem.signals._sensitive_column import SensitiveColumn, bin_edges
from tests.signals.attribute_helpers import Table, rows_of, table


def column_of(where: Table, column: int = 1, **fields: Any) -> SensitiveColumn:
    federation: Any = where
    return SensitiveColumn.of(federation, column, **{"bins": 4, **fields})


def test_a_category_is_replaced_whole() -> None:
    where = table([2, 0], [0, 1])
    changed = column_of(where).with_value(where.examples.inputs, 1)
    assert changed[:, 1:4].tolist() == [[0, 1, 0], [0, 1, 0]]
    np.testing.assert_array_equal(np.delete(changed, [1, 2, 3], axis=1), where.examples.inputs[:, [0, 4, 5]])
    assert where.examples.inputs[0, 1:4].tolist() == [0, 0, 1]


def test_the_true_value_gives_the_record_back() -> None:
    where = table([2, 0], [0, 1])
    column = column_of(where)
    for row, value in zip(where.examples.inputs, column.values_of(where.examples.inputs), strict=True):
        np.testing.assert_array_equal(column.with_value(row[None], int(value))[0], row)


def test_the_prior_is_that_of_public_rows_alone() -> None:
    first, second = (column_of(table(values, [0, 0])) for values in ([2, 2], [1, 1]))
    np.testing.assert_allclose(first.prior, [3 / 7, 2 / 7, 2 / 7])
    np.testing.assert_array_equal(first.prior, second.prior)


def test_a_value_without_a_public_row_can_be_guessed() -> None:
    assert column_of(table([0], [0], public=(0, 0))).prior.tolist() == [0.6, 0.2, 0.2]


def test_bins_of_a_number_come_from_public_rows() -> None:
    public = rows_of(np.zeros(8, int), np.zeros(8), numbers=np.arange(8) / 8)
    where = table([0, 0, 0], [0, 0, 0], population=public, numbers=[-1.0, 0.26, 5.0])
    column = column_of(where, 0)
    assert column.count == 4
    assert column.values_of(where.examples.inputs).tolist() == [0, 1, 3]
    medians = [column.with_value(where.examples.inputs, value)[0, 0] for value in range(4)]
    assert medians == [0.0625, 0.3125, 0.5625, 0.8125]


def test_every_bin_holds_a_value() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 5, 40):
        for _ in range(20):
            values = rng.integers(0, 6, size).astype(np.float64) ** 2
            counts = np.bincount(np.searchsorted(bin_edges(values, 4), values), minlength=1)
            assert (counts > 0).all()
            assert len(counts) == min(len(np.unique(values)), len(counts))


def test_a_mode_at_the_largest_value_leaves_two_bins() -> None:
    assert bin_edges(np.array([1.0, 2, 3, 4, *[9.0] * 40]), 4).tolist() == [4.0]


def test_unknown_columns_have_their_modal_cell() -> None:
    public = rows_of([0, 1, 2], [0, 0, 0], numbers=[0.1, 0.2, 0.3], others=[1, 1, 0])
    where = table([0], [0], population=public, others=[0], numbers=0.9)
    column = column_of(where, without=(0, 2))
    np.testing.assert_allclose(column.with_value(where.examples.inputs, 2)[0], [0.2, 0, 0, 1, 0, 1], rtol=1e-6)
    assert column.features(where.examples, 2).tolist() == [[1.0, 0.0]]


def test_features_do_not_have_the_column() -> None:
    first, second = (table([value], [1], numbers=0.3) for value in (0, 2))
    features = [column_of(where).features(where.examples, 2) for where in (first, second)]
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_allclose(features[0], [[0.3, 1, 0, 0, 1]], rtol=1e-6)


def test_more_public_rows_have_the_fewer() -> None:
    public = rows_of(np.zeros(50, int), np.zeros(50), numbers=np.arange(50))
    where = replace(table([0], [0], population=public), test=rows_of([0, 1], [0, 0], first_id=2000))
    few, many = (column_of(where, rows=count).public.ids.tolist() for count in (10, 60))
    assert many[:10] == few
    assert (len(few), len(many)) == (10, 52)


@pytest.mark.parametrize(
    ("where", "column", "message"),
    [
        (table([0], [0]), 3, "there is no column 3; the table has 3"),
        (table([0], [0]), 0, "column 0 has one value in all public rows"),
        (table([0], [0], public=()), 1, "set population to 200 or more"),
        (table([0], [0], public=(-1, -1)), 1, "set population to 200 or more"),
    ],
)
def test_what_cannot_be_inferred_is_refused(where: Table, column: int, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        column_of(where, column)
