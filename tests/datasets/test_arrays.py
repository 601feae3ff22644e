"""Tests of `fedmem/datasets/_arrays.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedmem.contracts.data import Dataset
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables
from tests.datasets.npz_helpers import X, Y


def test_blocks_describe_the_columns(load: Callable[..., Dataset]) -> None:
    table = np.concatenate([X, np.eye(4)[np.arange(20) % 4]], axis=1)
    assert load(x=table, y=Y, blocks=[1, 1, 1, 4]).modality == Tables(blocks=(1, 1, 1, 4))


def test_a_class_that_the_draw_loses_is_named(load: Callable[..., Dataset]) -> None:
    rare = np.where(np.arange(20) == 7, 2, Y)
    with pytest.raises(ComponentError, match="no training row is left of class 2"):  # noqa: PT012 (one of the draws)
        for seed in range(40):
            assert 2 in load(seed, x=X, y=rare).train.targets


def test_more_rows_than_there_are(load: Callable[..., Dataset]) -> None:
    with pytest.raises(ComponentError, match="30 exceeds the 20 rows") as caught:
        load(x=X, y=Y, x_test=X, y_test=Y, fields={"rows": 30})
    assert caught.value.path == "dataset.rows"
