"""Tests of `fedmem/models/_embedded.py`."""

from __future__ import annotations

import torch

from fedmem.models._embedded import Embedded


def test_numbers_pass_and_one_hots_select_a_column() -> None:
    layer = Embedded((1, 3, 1, 4), embedding=2)
    inputs = torch.tensor([[0.5, 0, 1, 0, 0.25, 0, 0, 0, 1]])
    weights = dict(layer.named_parameters())
    assert set(weights) == {"block1.weight", "block3.weight"}
    expected = torch.cat(
        [torch.tensor([0.5]), weights["block1.weight"][:, 1], torch.tensor([0.25]), weights["block3.weight"][:, 3]]
    )
    torch.testing.assert_close(layer(inputs)[0], expected)
    assert layer.width == len(expected) == 6


def test_embedding_is_not_wider_than_its_block() -> None:
    layer = Embedded((2, 5), embedding=4)
    assert [tuple(value.shape) for value in layer.parameters()] == [(2, 2), (4, 5)]
    assert layer.width == 2 + 4
