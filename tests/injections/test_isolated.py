"""Tests of `fedmem/injections/isolated.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.injections.isolated import Isolated
from tests.injections.injections_helpers import CLASSES, pictures, rows, skewed


def test_isolated_examples_have_one_feature_each() -> None:
    space = pictures(1, 8, 8)
    planned = Isolated(per_client=20, copies=2, amplitude=7.0).plan(
        skewed(8), Reserve(rows(np.zeros(1, np.int64))), space, np.random.default_rng(0)
    )
    flat = planned.examples.inputs.reshape(40, -1)
    assert (np.count_nonzero(flat, axis=1) == 1).all()
    assert set(flat[flat != 0].tolist()) == {7.0}
    assert len(np.unique(flat.argmax(1))) == 40
    assert planned.replacements is not None
    np.testing.assert_array_equal(planned.replacements.inputs, planned.examples.inputs)
    assert (planned.replacements.targets != planned.examples.targets).all()
    assert set(planned.replacements.targets.tolist()) == set(planned.examples.targets.tolist()) == set(range(CLASSES))
    with pytest.raises(ComponentError, match=r"needs a feature for each of 66 examples, but inputs have 64; lower"):
        Isolated(per_client=33).plan(skewed(8), Reserve(rows(np.zeros(1, np.int64))), space, np.random.default_rng(0))
