"""Tests of `fedmem/unlearners/_layers.py`."""

from __future__ import annotations

import torch

from fedmem.unlearners._layers import add, difference, norm, weighted_sum
from tests.unlearners.unlearner_helpers import model


def test_a_step_is_rounded_once_to_the_type_of_the_model() -> None:
    moved = add(model(1.0), {"w": torch.tensor([2.0**-30], dtype=torch.float64)})
    assert moved["w"].dtype == torch.float32
    assert moved["w"].item() == 1.0


def test_sums_and_differences_are_in_float64() -> None:
    total = weighted_sum({3: model(1.0), 7: model(4.0)}, {3: 0.25, 7: 0.75})
    assert total["w"].dtype == torch.float64
    assert total["w"].tolist() == [3.25]
    assert difference(model(3.0), model(1.0))["w"].tolist() == [2.0]


def test_the_norm_is_over_all_layers_and_zero_of_nothing() -> None:
    assert norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}) == 5.0
    assert norm({}) == 0.0
