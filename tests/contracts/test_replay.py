"""Tests of `fedmem/contracts/replay.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.contracts.replay import Replay


@pytest.mark.parametrize(
    "change", [Replay(start={"w": torch.zeros(1)}), Replay(without=(0,)), Replay(extra={0: 1}), Replay(steps=0)]
)
def test_each_field_is_a_change(change: Replay) -> None:
    assert not change.is_unchanged
    assert Replay().is_unchanged
