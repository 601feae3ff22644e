"""Tests of `fedmem/execution/executors.py`."""

from __future__ import annotations

from fedmem.execution.auto import is_stacked
from tests.tiny import tiny


def test_only_stackable_models_in_lockstep_are_stacked() -> None:
    cnn = {"kind": "small_cnn"}
    assert is_stacked(tiny())
    assert not is_stacked(tiny(speed={"executor": "one_by_one"}))
    assert not is_stacked(tiny(model=cnn))
    assert not is_stacked(tiny(speed={"engine": "flower"}))
