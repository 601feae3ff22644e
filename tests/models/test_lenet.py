"""The network on which gradients leak."""

from __future__ import annotations

import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.models.lenet import LeNet


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 7, 9)])
def test_takes_images_of_any_size(shape: tuple[int, ...]) -> None:
    assert LeNet().build(shape, 4)(torch.zeros(2, *shape)).shape == (2, 4)


def test_lenet_weights_are_uniform_with_the_chosen_activation() -> None:
    torch.manual_seed(0)
    wide = LeNet(spread=0.5).build((1, 28, 28), 10)
    values = torch.cat([value.detach().flatten() for value in wide.parameters()])
    assert values.abs().max() <= 0.5
    assert abs(float(values.std()) - 0.5 / 3**0.5) < 0.01
    narrow = torch.cat([value.detach().flatten() for value in LeNet().build((1, 28, 28), 10).parameters()])
    assert narrow.std() < 0.1
    assert [type(part).__name__ for part in LeNet(activation="relu").build((1, 8, 8), 2).children()][1::2][:3] == [
        "ReLU"
    ] * 3


def test_lenet_refuses_tables() -> None:
    with pytest.raises(ComponentError, match="mlp"):
        LeNet().build((5,), 2)
