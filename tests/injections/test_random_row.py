"""Tests of `fedmem/injections/random_row.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedmem.errors import ComponentError
from fedmem.injections.random_row import RandomRow
from tests.injections.canaries_helpers import BLOCKS, space, table


def test_random_rows_are_valid_with_independent_columns() -> None:
    found = RandomRow().references(6000, table(), np.random.default_rng(0))
    assert found.dtype == np.float32
    assert (found[:, 1:5].sum(1) == 1).all()
    assert (found[:, 6:].sum(1) == 1).all()
    assert stats.chisquare(found[:, 1:5].sum(0)).pvalue > 1e-3
    assert stats.kstest(found[:, 0], stats.uniform(-1, 4).cdf).pvalue > 1e-3
    assert stats.kstest(found[:, 0], stats.uniform(-1, 3.8).cdf).pvalue < 1e-3
    assert stats.kstest(found[:, 5], stats.uniform(5, 0.5).cdf).pvalue > 1e-3
    joint = [[(found[:, 1 + i] * found[:, 6 + j]).sum() for j in range(2)] for i in range(4)]
    assert stats.chi2_contingency(joint).pvalue > 1e-3
    assert abs(np.corrcoef(found[:, 0], found[:, 5])[0, 1]) < 0.05


def test_a_table_without_blocks_is_all_numbers() -> None:
    found = RandomRow().references(50, space(4), np.random.default_rng(0))
    assert len(np.unique(found)) == 200


def test_a_table_with_too_few_rows_is_refused() -> None:
    constant = replace(table(), high=np.where(np.repeat(np.array(BLOCKS) == 1, BLOCKS), table().low, table().high))
    with pytest.raises(ComponentError, match=r"only 8 different rows .* fewer than 2\^32"):
        RandomRow().references(1, constant, np.random.default_rng(0))
