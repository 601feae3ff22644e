"""Tests of `fedmem/partitions/natural.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.datasets.digits import Digits
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.partitions.natural import Natural
from tests.partitions.partitions_helpers import labelled


def test_natural_gives_each_form_its_rows() -> None:
    data = Digits().load(np.random.default_rng(0))
    assert data.natural is not None
    rows = np.arange(0, 1500, 2)
    for form, part in enumerate(Natural().assign(data, rows, 14, np.random.default_rng(0))):
        np.testing.assert_array_equal(part, rows[data.natural[rows] == form])


def test_natural_names_the_number_of_clients_that_works() -> None:
    data = Digits().load(np.random.default_rng(0))
    with pytest.raises(ComponentError, match="write `clients: 14`") as caught:
        Natural().assign(data, np.arange(1500), 20, np.random.default_rng(0))
    assert caught.value.path == "clients"


def test_natural_wants_owners_that_still_have_rows() -> None:
    with pytest.raises(ComponentError, match="no natural owners") as caught:
        Natural().assign(labelled(np.zeros(9, np.int64)), np.arange(9), 3, np.random.default_rng(0))
    assert caught.value.path == "partition.kind"
    data = Synthetic(rows=60, groups=3).load(np.random.default_rng(0))
    assert data.natural is not None
    with pytest.raises(ComponentError, match="owner 1 first"):
        Natural().assign(data, np.flatnonzero(data.natural != 1), 3, np.random.default_rng(0))
