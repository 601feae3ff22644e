"""Shapes, names and refusals of the models."""

import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.models._residual import Residual
from fedmem.models.logistic import Logistic
from fedmem.models.mlp import MLP
from fedmem.models.resnet8 import ResNet8
from fedmem.models.small_cnn import SmallCNN
from fedmem.models.tabular_mlp import TabularMLP


def test_mlp_counts_its_parameters() -> None:
    module = MLP(hidden=(64,)).build((1, 8, 8), 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == 64 * 64 + 64 + 64 * 10 + 10


def test_mlp_without_hidden_layers_is_linear() -> None:
    module = MLP(hidden=()).build((3,), 2)
    assert [name for name, _ in module.named_parameters()] == ["output.weight", "output.bias"]
    one, other = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[4.0, 5.0, 6.0]])
    torch.testing.assert_close(module(one) + module(other), 2 * module((one + other) / 2))


@pytest.mark.parametrize(("activation", "value"), [("relu", 0.0), ("tanh", -0.76159416), ("sigmoid", 0.26894143)])
def test_mlp_applies_the_activation_that_was_asked_for(activation: str, value: float) -> None:
    module = MLP(hidden=(1,), activation=activation).build((1,), 1)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, number in (("hidden1.weight", 1), ("hidden1.bias", 0), ("output.weight", 1), ("output.bias", 0)):
            module.get_parameter(name).fill_(number)
        assert module(torch.tensor([[-1.0]])).item() == pytest.approx(value)


def test_mlp_names_every_layer() -> None:
    names = [name for name, _ in MLP(hidden=(5, 4)).build((2, 3), 2).named_parameters()]
    assert names == [f"{layer}.{part}" for layer in ("hidden1", "hidden2", "output") for part in ("weight", "bias")]


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


def test_logistic_is_a_linear_model_that_does_not_start_at_zero() -> None:
    module = Logistic().build((2, 3), 4)
    assert [tuple(p.shape) for p in module.parameters()] == [(4, 6), (4,)]
    rows = torch.rand(5, 2, 3)
    expected = rows.flatten(1) @ module.get_parameter("output.weight").T + module.get_parameter("output.bias")
    torch.testing.assert_close(module(rows), expected)
    assert module.get_parameter("output.weight").std() > 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 4, 5)])
def test_resnet8_takes_images_of_many_sizes(shape: tuple[int, ...]) -> None:
    module = ResNet8().build(shape, 7)
    assert module(torch.rand(2, *shape)).shape == (2, 7)
    assert list(module.buffers()) == []


def test_resnet8_has_eight_layers_with_weights_beside_its_projections() -> None:
    module = ResNet8(width=4, groups=2).build((3, 8, 8), 5)
    layers = [name for name, part in module.named_modules() if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len([name for name in layers if not name.endswith("project")]) == 8
    assert [name for name in layers if name.endswith("project")] == ["block2.project", "block3.project"]
    assert list(dict.fromkeys(name.split(".")[0] for name, _ in module.named_parameters())) == [
        *("stem", "norm", "block1", "block2", "block3", "output")
    ]


def test_a_residual_block_adds_its_input() -> None:
    """With its second norm at zero, a block passes on what came in, or the projection of it."""
    rows = torch.rand(2, 4, 6, 6)
    for after, stride in ((4, 1), (8, 2)):
        block = Residual(4, after, stride, groups=2)
        torch.nn.init.zeros_(block.norm2.weight)
        torch.testing.assert_close(block(rows), block.project(rows).relu())
        assert block(rows).shape == (2, after, 6 // stride, 6 // stride)
        torch.nn.init.ones_(block.norm2.weight)
        assert not torch.allclose(block(rows), block.project(rows).relu())


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
    with pytest.raises(ComponentError, match=r"these data are no table; choose `model: \{kind: mlp\}`") as caught:
        TabularMLP().build_table((), 2)
    assert caught.value.path == "model.kind"
