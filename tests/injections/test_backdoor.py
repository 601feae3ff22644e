"""Tests of `fedmem/injections/backdoor.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.errors import ComponentError
from fedmem.injections.backdoor import Backdoor
from fedmem.modalities.tables import Tables
from tests.injections.atypical_helpers import SPACE, clean, plan

TABLE = replace(
    SPACE,
    mean=np.full(4, 0.5, np.float32),
    low=np.zeros(4, np.float32),
    high=np.array([0.75, 1, 1, 1], np.float32),
    modality=Tables(blocks=(1, 3)),
)


def test_rows_are_those_of_others_with_a_patch_and_the_target() -> None:
    injected = plan(Backdoor(clients=(0, 2), per_client=30, target=2))
    rows = clean(injected)
    assert set(injected.examples.targets.tolist()) == {2}
    assert 2 not in rows.targets
    changed = injected.examples.inputs != rows.inputs
    assert not changed[..., :6, :].any()
    assert not changed[..., :, :6].any()
    assert (injected.examples.inputs[..., 6:, 6:] == SPACE.high.max()).all()
    assert injected.owner.tolist() == [0] * 30 + [2] * 30


def test_a_column_is_the_trigger_of_a_table() -> None:
    rows = np.array([[0.1, 1, 0, 0], [0.2, 0, 0, 1]], np.float32)
    number, category = (Backdoor(column=column).with_trigger(rows, TABLE) for column in (0, 1))
    np.testing.assert_array_equal(number, np.array([[0.75, 1, 0, 0], [0.75, 0, 0, 1]], np.float32))
    np.testing.assert_array_equal(category, np.array([[0.1, 0, 0, 1], [0.2, 0, 0, 1]], np.float32))
    assert rows[0, 1] == 1, "the rows themselves stay"
    with pytest.raises(ComponentError, match="there is no column 2; use 0 to 1"):
        Backdoor(column=2).with_trigger(rows, TABLE)


def test_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ComponentError, match="there is no class 7; use 0 to 3") as error:
        plan(Backdoor(target=7))
    assert error.value.path == "injections.target"
