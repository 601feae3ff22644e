"""Tests of `fedmem/training/operations.py`."""

from __future__ import annotations

import torch
from torch import nn

from fedmem.training.operations import count_operations


def test_products_and_convolutions_are_counted() -> None:
    x = torch.zeros(2, 3, 5, 5)
    assert count_operations(lambda: nn.Conv2d(3, 4, 3, bias=False)(x)) == 2 * (2 * 4 * 9) * 27
    assert count_operations(lambda: nn.Conv2d(3, 6, 3, groups=3)(x)) == 2 * (2 * 6 * 9) * 9
    assert count_operations(lambda: torch.zeros(2, 3, 4) @ torch.zeros(2, 4, 5)) == 2 * (2 * 3 * 5) * 4
    assert count_operations(lambda: nn.Linear(4, 5)(torch.zeros(7, 4))) == 2 * 7 * 5 * 4
    assert count_operations(lambda: torch.zeros(3) + 1) == 0
