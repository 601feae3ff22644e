"""Tests of `fedmem/models/tabular_mlp.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.models.tabular_mlp import TabularMLP


def test_a_one_hot_becomes_the_embedding_of_its_category() -> None:
    module = TabularMLP(embedding=2, hidden=()).build_table((1, 3, 2), 4)
    numbers, first, second = torch.rand(6, 1), torch.arange(6) % 3, torch.arange(6) % 2
    one_hot = torch.nn.functional.one_hot
    rows = torch.cat([numbers, one_hot(first, 3).float(), one_hot(second, 2).float()], dim=1)
    columns = [module.get_parameter(f"embedded.block{i}.weight").T for i in (1, 2)]
    looked_up = [torch.nn.functional.embedding(index, c) for index, c in zip((first, second), columns, strict=True)]
    joined = torch.cat([numbers, *looked_up], dim=1)
    expected = joined @ module.get_parameter("output.weight").T + module.get_parameter("output.bias")
    torch.testing.assert_close(module(rows), expected)
    # The categories of the two columns are not mixed up.
    swapped = torch.cat([numbers, one_hot(second, 3).float(), one_hot(first.clamp(max=1), 2).float()], dim=1)
    assert not torch.allclose(module(swapped), expected)


def test_an_embedding_is_no_wider_than_its_category() -> None:
    module = TabularMLP(embedding=8, hidden=(5,)).build_table((2, 1, 20), 3)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    assert shapes["embedded.block0.weight"] == (2, 2)
    assert shapes["embedded.block2.weight"] == (8, 20)
    assert shapes["hidden1.weight"] == (5, 2 + 1 + 8)
    assert list(shapes) == ["embedded.block0.weight", "embedded.block2.weight"] + [
        f"{layer}.{part}" for layer in ("hidden1", "output") for part in ("weight", "bias")
    ]


def test_tabular_mlp_wants_a_table() -> None:
    with pytest.raises(ComponentError, match=r"these data are no table. Choose `model: \{kind: mlp\}`") as caught:
        TabularMLP().build_table((), 2)
    assert caught.value.path == "model.kind"
