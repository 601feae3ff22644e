"""Tests of `fedmem/training/blocks.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.contracts.arrays import Params
from fedmem.models.mlp import MLP
from fedmem.models.resnet8 import ResNet8
from fedmem.models.small_cnn import SmallCNN
from fedmem.training.blocks import features_of, hidden_blocks


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (MLP(hidden=(8, 6)).build((1, 4, 4), 3), ("activation1", "activation2")),
        (MLP(hidden=(8,)).build((1, 4, 4), 3), ("activation1",)),
        (MLP(hidden=()).build((1, 4, 4), 3), ()),
        (SmallCNN().build((1, 8, 8), 3), ("pool1", "pool2")),
        (ResNet8().build((1, 8, 8), 3), ("activation", "block1", "block2", "pool")),
        (nn.Sequential(MLP(hidden=(8, 6)).build((1, 4, 4), 3)), ("0.activation1", "0.activation2")),
    ],
)
def test_blocks_end_before_the_next_matrix(network: nn.Module, expected: tuple[str, ...]) -> None:
    shape = (1, 1, 8, 8) if isinstance(network[0], nn.Conv2d) else (1, 1, 4, 4)  # type: ignore[index]
    assert hidden_blocks(network, torch.zeros(shape)) == expected


def test_blocks_are_in_the_order_of_calls() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.middle, self.first = nn.Linear(3, 2), nn.Linear(4, 3), nn.Linear(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.last(self.middle(self.first(x)))
            return logits

    assert hidden_blocks(Backwards(), torch.zeros(1, 5)) == ("first", "middle")


def test_features_are_outputs_of_the_given_parameters() -> None:
    network = MLP(hidden=(8, 6)).build((1, 4, 4), 3).double()
    params = {name: torch.randn_like(value) for name, value in network.named_parameters()}
    x = torch.randn(5, 1, 4, 4).double()
    (first, second), logits = features_of(network, params, x, ("activation1", "activation2"))
    hand = (x.flatten(1) @ params["hidden1.weight"].T + params["hidden1.bias"]).relu()
    np.testing.assert_allclose(first, hand)
    hand = (hand @ params["hidden2.weight"].T + params["hidden2.bias"]).relu()
    np.testing.assert_allclose(second, hand)
    np.testing.assert_allclose(logits, hand @ params["output.weight"].T + params["output.bias"])
    assert not network._forward_hooks


def test_maps_are_averaged_over_positions() -> None:
    network = ResNet8().build((1, 16, 16), 3)
    params: Params = dict(network.named_parameters())
    features, _ = features_of(
        network, params, torch.randn(2, 1, 16, 16), hidden_blocks(network, torch.zeros(1, 1, 16, 16))
    )
    assert [part.shape[1] for part in features] == [16 * 16, 16 * 16, 32 * 16, 64]
