"""Tests of `fedmem/models/resnet8.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.models.resnet8 import ResNet8


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 4, 5)])
def test_resnet8_takes_images_of_many_sizes(shape: tuple[int, ...]) -> None:
    module = ResNet8().build(shape, 7)
    assert module(torch.rand(2, *shape)).shape == (2, 7)
    assert list(module.buffers()) == []


def test_resnet8_has_eight_weight_layers_besides_projections() -> None:
    module = ResNet8(width=4, groups=2).build((3, 8, 8), 5)
    layers = [name for name, part in module.named_modules() if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len([name for name in layers if not name.endswith("project")]) == 8
    assert [name for name in layers if name.endswith("project")] == ["block2.project", "block3.project"]
    assert list(dict.fromkeys(name.split(".")[0] for name, _ in module.named_parameters())) == [
        *("stem", "norm", "block1", "block2", "block3", "output")
    ]


def test_resnet8_trains_as_a_stack_too() -> None:
    """It does not say stackable, since that is slow on a CPU, but it is right where somebody asks for it."""
    modules = [ResNet8(width=4, groups=2).build((1, 8, 8), 3) for _ in range(3)]
    params, buffers = torch.func.stack_module_state(modules)
    assert not buffers
    rows, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])

    def loss(own: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(torch.func.functional_call(modules[0], own, (rows,)), labels)

    stacked = torch.vmap(torch.func.grad(loss))(params)
    for i, module in enumerate(modules):
        for name, value in torch.func.grad(loss)(dict(module.named_parameters())).items():
            torch.testing.assert_close(stacked[name][i], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(20,), (8, 8), (1, 3, 8)])
def test_resnet8_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ComponentError, match=r"choose `model: \{kind: mlp\}`"):
        ResNet8().build(shape, 7)


def test_resnet8_groups_must_divide_the_width() -> None:
    with pytest.raises(
        ComponentError, match="3 groups do not divide the width 16; use one of 1, 2, 4, 8, 16"
    ) as caught:
        ResNet8(groups=3).build((1, 8, 8), 7)
    assert caught.value.path == "model.groups"
