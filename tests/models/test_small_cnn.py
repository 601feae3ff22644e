"""Tests of `fedmem/models/small_cnn.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.models.small_cnn import SmallCNN
from fedmem.scenario.catalogue import dump


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 4, 5)])
def test_small_cnn_takes_images_of_many_sizes(shape: tuple[int, ...]) -> None:
    module = SmallCNN().build(shape, 7)
    assert module(torch.rand(2, *shape)).shape == (2, 7)
    assert list(module.buffers()) == []


@pytest.mark.parametrize("shape", [(20,), (8, 8), (1, 3, 8)])
def test_small_cnn_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ComponentError, match=r"choose `model: \{kind: mlp\}`"):
        SmallCNN().build(shape, 7)


def test_small_cnn_groups_must_divide_the_channels() -> None:
    with pytest.raises(ComponentError, match="3 groups do not divide") as caught:
        SmallCNN(groups=3).build((1, 8, 8), 7)
    assert caught.value.path == "model.groups"


def test_small_cnn_adapts_activation_and_pooling() -> None:
    layers = [type(layer).__name__ for layer in SmallCNN().build((1, 8, 8), 3).children()]
    assert layers[2:4] == layers[6:8] == ["ReLU", "MaxPool2d"]
    adapted = SmallCNN(activation="tanh", pooling="mean").build((1, 8, 8), 3)
    assert [type(layer).__name__ for layer in adapted.children()][2:4] == ["Tanh", "AvgPool2d"]
    assert [name for name, _ in adapted.named_parameters()] == [
        name for name, _ in SmallCNN().build((1, 8, 8), 3).named_parameters()
    ]
    assert not {"activation", "pooling"} & dump(SmallCNN(), for_id=True).keys(), "defaults keep ids"
