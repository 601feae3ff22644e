"""Tests of `fedmem/models/conv1d.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.models.conv1d import Conv1d
from fedmem.scenario.catalogue import dump


@pytest.mark.parametrize(("channels", "length"), [(1, 4), (3, 9), (2, 64)])
def test_series_of_any_length_from_4_give_one_logit_per_class(channels: int, length: int) -> None:
    network = Conv1d(width=4, groups=2).build((channels, length), 3)
    assert network(torch.zeros(5, channels, length)).shape == (5, 3)
    # by hand: two convolutions of 5 places with bias, two norms, a linear layer over a quarter of the places
    count = (5 * channels * 4 + 4) + 8 + (5 * 4 * 4 + 4) + 8 + (4 * (length // 2 // 2) * 3 + 3)
    assert sum(value.numel() for value in network.parameters()) == count


def test_distant_places_do_not_interact_before_the_norm() -> None:
    first = Conv1d(kernel=3).build((1, 16), 2).get_submodule("conv1")
    x = torch.zeros(1, 1, 16)
    y = x.clone()
    y[0, 0, 8] = 1.0
    moved = (first(y) - first(x)).abs().sum(dim=(0, 1)) > 0
    assert moved.nonzero().flatten().tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("fields", "shape", "key"),
    [({}, (1, 8, 8), "model.kind"), ({}, (1, 3), "model.kind"), ({"kernel": 4}, (1, 8), "model.kernel"),
     ({"width": 6}, (1, 8), "model.groups")],
)  # fmt: skip
def test_wrong_inputs_or_fields_are_refused_by_key(fields: dict[str, Any], shape: tuple[int, ...], key: str) -> None:
    with pytest.raises(ComponentError) as caught:
        Conv1d(**fields).build(shape, 2)
    assert caught.value.path == key


def test_conv1d_adapts_activation_and_pooling() -> None:
    layers = [type(layer).__name__ for layer in Conv1d().build((1, 16), 3).children()]
    assert layers[2:4] == layers[6:8] == ["SiLU", "AvgPool1d"]
    adapted = Conv1d(activation="tanh", pooling="max").build((1, 16), 3)
    assert [type(layer).__name__ for layer in adapted.children()][2:4] == ["Tanh", "MaxPool1d"]
    assert [name for name, _ in adapted.named_parameters()] == [
        name for name, _ in Conv1d().build((1, 16), 3).named_parameters()
    ]
    assert not {"activation", "pooling"} & dump(Conv1d(), for_id=True).keys(), "defaults keep ids"
