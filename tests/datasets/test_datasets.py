"""Digits are the published ones, with their forms; synthetic data are what their formula says."""

import numpy as np
import pytest

from fedmem.contracts.data import DatasetLoader
from fedmem.datasets.digits import Digits
from fedmem.datasets.synthetic import Synthetic
from tests.datasets.datasets_helpers import everything


@pytest.mark.parametrize(
    "loader", [Digits(), Digits(test=100), Synthetic(rows=70, test=30), Synthetic(rows=70, test=30, groups=7)]
)
def test_loading_is_a_function_of_the_generator(loader: DatasetLoader) -> None:
    first, second, third = (loader.load(np.random.default_rng(seed)) for seed in (0, 0, 1))
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(first, part).ids, getattr(second, part).ids)
        np.testing.assert_array_equal(getattr(first, part).inputs, getattr(second, part).inputs)
    assert not np.array_equal(first.test.inputs, third.test.inputs)
    for rows in (first.train, first.test):
        assert rows.inputs.dtype == np.float32
        assert rows.targets.dtype == rows.ids.dtype == np.int64
        assert 0 <= rows.inputs.min() <= rows.inputs.max() <= 1
        assert set(rows.targets.tolist()) <= set(range(first.num_classes))
    np.testing.assert_array_equal(everything(first).ids, np.arange(len(first.train) + len(first.test)))
    assert first.natural is None or first.natural.shape == (len(first.train),)
