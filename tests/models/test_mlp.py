"""Tests of `fedmem/models/mlp.py`."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from fedmem.models.mlp import MLP

BIASES: tuple[Literal["all", "first", "none"], ...] = ("all", "first", "none")


def test_mlp_counts_its_parameters() -> None:
    module = MLP(hidden=(64,)).build((1, 8, 8), 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == 64 * 64 + 64 + 64 * 10 + 10


def test_mlp_without_hidden_layers_is_linear() -> None:
    module = MLP(hidden=()).build((3,), 2)
    assert [name for name, _ in module.named_parameters()] == ["output.weight", "output.bias"]
    one, other = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[4.0, 5.0, 6.0]])
    torch.testing.assert_close(module(one) + module(other), 2 * module((one + other) / 2))


@pytest.mark.parametrize(("activation", "value"), [("relu", 0.0), ("tanh", -0.76159416), ("sigmoid", 0.26894143)])
def test_mlp_applies_the_activation_that_was_asked_for(
    activation: Literal["relu", "tanh", "sigmoid"], value: float
) -> None:
    module = MLP(hidden=(1,), activation=activation).build((1,), 1)
    with torch.no_grad():
        for name, number in (("hidden1.weight", 1), ("hidden1.bias", 0), ("output.weight", 1), ("output.bias", 0)):
            module.get_parameter(name).fill_(number)
        assert module(torch.tensor([[-1.0]])).item() == pytest.approx(value)


def test_mlp_names_every_layer() -> None:
    names = [name for name, _ in MLP(hidden=(5, 4)).build((2, 3), 2).named_parameters()]
    assert names == [f"{layer}.{part}" for layer in ("hidden1", "hidden2", "output") for part in ("weight", "bias")]


def test_biases_can_be_left_out() -> None:
    names = {b: [n for n, _ in MLP(hidden=(3, 3), biases=b).build((2,), 2).named_parameters()] for b in BIASES}
    assert [name for name in names["first"] if name.endswith("bias")] == ["hidden1.bias"]
    assert not [name for name in names["none"] if name.endswith("bias")]
    assert len(names["all"]) == 6
    assert "output.bias" in dict(MLP(hidden=(), biases="first").build((2,), 2).named_parameters())


@pytest.mark.parametrize(("biases", "homogeneous"), [("all", False), ("first", True), ("none", True)])
def test_without_later_biases_logits_are_homogeneous(
    biases: Literal["all", "first", "none"], homogeneous: bool
) -> None:
    torch.manual_seed(0)
    module = MLP(hidden=(5,), biases=biases).build((2,), 2)
    inputs = torch.rand(4, 2)
    before = module(inputs)
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(3.0)
    assert torch.allclose(module(inputs), 9 * before) == homogeneous


def test_initial_scale_multiplies_all_parameters() -> None:
    built = []
    for scale in (1.0, 0.1):
        torch.manual_seed(0)
        built.append(MLP(initial_scale=scale).build((3,), 2))
    for one, other in zip(*(module.parameters() for module in built), strict=True):
        torch.testing.assert_close(0.1 * one, other)
