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
from fedmem.models.transformer import Transformer
from fedmem.training.blocks import features_of, hidden_blocks, parameter_blocks


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


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        (MLP(hidden=(8, 6)).build((1, 8, 8), 3), [{"hidden1"}, {"hidden2"}, {"output"}]),
        (MLP(hidden=()).build((1, 8, 8), 3), [{"output"}]),
        (SmallCNN(norm="batch").build((1, 8, 8), 3), [{"conv1", "norm1"}, {"conv2", "norm2"}, {"output"}]),
        (ResNet8().build((1, 8, 8), 3), [{"stem", "norm"}, {"block1"}, {"block2"}, {"block3"}, {"output"}]),
        (nn.Sequential(nn.LayerNorm(8), nn.Flatten(), nn.Linear(64, 2)), [{"0", "2"}]),
    ],
)
def test_norms_biases_and_statistics_go_with_their_matrix(network: nn.Module, parts: list[set[str]]) -> None:
    names = list(network.state_dict())
    blocks = parameter_blocks(network, torch.zeros(2, 1, 8, 8), names)
    assert [{name.partition(".")[0] for name in block} for block in blocks] == parts
    assert sorted(name for block in blocks for name in block) == sorted(names), "each entry is in one block"
    assert any(name.endswith("bias") for name in blocks[-1])


def test_parts_in_a_list_are_blocks_of_their_own() -> None:
    network = Transformer(width=8, heads=2, layers=2).build((10,), 20)
    names = [name for name, _ in network.named_parameters()]
    blocks = parameter_blocks(network, torch.zeros(1, 10, dtype=torch.int64), names)
    tops = [{".".join(name.split(".")[:2]) for name in block} for block in blocks]
    assert tops[2:4] == [{"blocks.0"}, {"blocks.1", "norm.weight", "norm.bias"}]
    assert blocks[4] == ("output.weight", "output.bias")


def test_blocks_without_entries_are_left_out() -> None:
    network = MLP(hidden=(8, 6)).build((1, 8, 8), 3)
    blocks = parameter_blocks(network, torch.zeros(1, 1, 8, 8), ["output.bias", "hidden1.weight"])
    assert blocks == (("hidden1.weight",), ("output.bias",))


def test_entries_of_no_called_part_go_with_the_first_block() -> None:
    class WithCode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 2)
            self.code = nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.last(self.first(x + self.code))
            return logits

    network = WithCode()
    blocks = parameter_blocks(network, torch.zeros(1, 4), list(network.state_dict()))
    assert blocks == (("code", "first.weight", "first.bias"), ("last.weight", "last.bias"))
