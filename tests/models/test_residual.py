"""Tests of `fedmem/models/_residual.py`."""

from __future__ import annotations

import torch

from fedmem.models._residual import Residual


def test_a_residual_block_adds_its_input() -> None:
    """With its second norm at zero, a block passes on what came in, or the projection of it."""
    rows = torch.rand(2, 4, 6, 6)
    for after, stride in ((4, 1), (8, 2)):
        block = Residual(4, after, stride, groups=2)
        torch.nn.init.zeros_(block.norm2.weight)
        torch.testing.assert_close(block(rows), block.project(rows).relu())
        assert block(rows).shape == (2, after, 6 // stride, 6 // stride)
        torch.nn.init.ones_(block.norm2.weight)
        assert not torch.allclose(block(rows), block.project(rows).relu())
