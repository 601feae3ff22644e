"""Tests of `fedmem/training/derivatives.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmem.contracts.arrays import Params
from fedmem.training.derivatives import ExampleGradients, double, input_hessian_product, input_slopes, slopes_along
from tests.narrowing import present


def convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 4, 5)
    ).double()


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.Tanh(), nn.Linear(7, 5, bias=False)).double()


class Recurrent(nn.Module):
    """Reads the rows of an image one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.flatten(0, 1))[0][:, -1])  # type: ignore[no-any-return]


def recurrent() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent().double()


DATA = np.random.default_rng(1).random((6, 1, 6, 6)).astype(np.float32), np.array([0, 4, 2, 2, 1, 3])


def params_of(network: nn.Module) -> Params:
    return {name: value.detach() for name, value in network.named_parameters()}


def loop(network: nn.Module) -> dict[str, list[float]]:
    squares: dict[str, list[float]] = {name: [] for name, _ in network.named_parameters()}
    for x, y in zip(*DATA, strict=True):
        network.zero_grad()
        nn.functional.cross_entropy(network(torch.from_numpy(x[None]).double()), torch.tensor([y])).backward()  # type: ignore[no-untyped-call]
        for name, value in network.named_parameters():
            squares[name].append(float(present(value.grad).square().sum()))
    return squares


@pytest.mark.parametrize("make", [dense, convolution, recurrent])
def test_squares_equal_a_loop_of_autograd(make: object) -> None:
    network = make()  # type: ignore[operator]
    expected = loop(network)
    found = ExampleGradients(network, DATA[0]).squares([params_of(network), params_of(network)], *DATA)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], [values, values], rtol=1e-10, err_msg=name)


def test_values_of_a_model_do_not_depend_on_those_beside_it() -> None:
    network = dense()
    other = {name: value + 1 for name, value in params_of(network).items()}
    gradients = ExampleGradients(network, DATA[0])
    alone, beside = gradients.squares([other], *DATA), gradients.squares([params_of(network), other], *DATA)
    for name, values in alone.items():
        assert (values[0] == beside[name][1]).all()


def test_input_slopes_are_finite_differences() -> None:
    network = dense()
    for of in ("loss", "logit"):
        slopes = input_slopes(network, *DATA, of=of)
        step = torch.zeros(1, 6, 6).double()
        step[0, 2, 3] = 1e-6
        for row in range(6):
            before, after = (
                float(value_of(network, double(DATA[0][row : row + 1]) + move, int(DATA[1][row]), of))
                for move in (0 * step, step)
            )
            assert float(slopes[row, 0, 2, 3]) == pytest.approx((after - before) / 1e-6, rel=1e-4, abs=1e-8)


def value_of(network: nn.Module, x: Tensor, label: int, of: str) -> Tensor:
    outputs: Tensor = network(x).detach()
    return outputs[0, label] if of == "logit" else nn.functional.cross_entropy(outputs, torch.tensor([label]))


def test_hessian_product_of_a_quadratic() -> None:
    # two logits whose difference is 0: the Hessian of the loss is a quarter of the outer product of the slope
    weight = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]).double()
    direction = torch.tensor([1.0, -1.0, 1.0]).double()
    found = input_hessian_product(lambda x: x @ weight.T, np.zeros((1, 3), np.float32), np.array([0]), direction)
    expected = 0.25 * weight[0] * float(weight[0] @ direction)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_slopes_along_a_direction_are_inner_products() -> None:
    network = convolution()
    params = params_of(network)
    direction = {name: torch.randn(value.shape).double() for name, value in params.items()}
    found = slopes_along(network, params, direction, *DATA)
    for row in range(6):
        network.zero_grad()
        x, y = torch.from_numpy(DATA[0][row : row + 1]).double(), torch.from_numpy(DATA[1][row : row + 1])
        nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        slopes = {name: present(value.grad) for name, value in network.named_parameters()}
        inner = float(torch.stack([(slope * direction[name]).sum() for name, slope in slopes.items()]).sum())
        assert found[row] == pytest.approx(inner, rel=1e-9)


def test_tokens_stay_whole_numbers() -> None:
    assert double(np.array([[3, 1]])).dtype == torch.int64
