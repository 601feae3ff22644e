"""Tests of `fedmem/contracts/audit_set.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.contracts.audit_set import FOREVER, AuditSet
from fedmem.contracts.data import Examples

SET = AuditSet(
    examples=Examples(inputs=np.zeros((3, 2), np.float32), targets=np.zeros(3, np.int64), ids=np.arange(3)),
    kind=np.array(["b", "a", "b"]),
    role=np.array(["typical"] * 3),
    owner=np.array([0, 2, -1], np.int32),
    copies=np.array([2, 1, 1], np.int32),
    is_in=np.array([[True, False, True], [False, True, False]]),
)


def test_windows_default_to_all_rounds_and_include_both_ends() -> None:
    assert SET.start.tolist() == [0, 0, 0]
    assert SET.stop.tolist() == [FOREVER] * 3
    windows = replace(SET, start=np.array([0, 2, 4], np.int32), stop=np.array([9, 3, 4], np.int32))
    assert [windows.is_active(round_number).tolist() for round_number in (1, 2, 3, 4)] == [
        [True, False, False],
        [True, True, False],
        [True, True, False],
        [True, False, True],
    ]


def test_kinds_are_in_order_and_number_the_injections() -> None:
    assert SET.kinds == ("b", "a")
    assert SET.injection.tolist() == [0, 1, 0]
    assert SET.runs == 2


def test_every_client_with_a_copy_holds_the_example() -> None:
    assert SET.subject.tolist() == [0, 0, 1, 2]
    assert SET.holds([0, 1, 2, -1]).tolist() == [
        [True, False, False],
        [False, False, False],
        [False, True, False],
        [False, False, False],
    ]
    shared = replace(SET, copy_owner=np.array([0, 1, 2, -1], np.int32))
    assert shared.holds([0, 1, 2]).tolist() == [[True, False, False], [True, False, False], [False, True, False]]
