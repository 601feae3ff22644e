"""Tests of `fedmem/training/largest_margin.py`."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from fedmem.models.mlp import MLP
from fedmem.training.largest_margin import margin_gradient, margins, unexplained_share


def test_the_sigmoid_is_in_backward_passes_alone() -> None:
    model = MLP(hidden=(3,)).build((2,), 2).double()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    before = copy.deepcopy(weights)
    inputs, labels = torch.rand(4, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    ones = torch.ones(4, dtype=torch.float64)
    hard = margin_gradient(model, weights, inputs, labels, ones)
    nearly = margin_gradient(model, weights, inputs, labels, ones, sharpness=1e7)
    soft = margin_gradient(model, weights, inputs, labels, ones, sharpness=1.0)
    torch.testing.assert_close(hard, nearly)
    assert float((hard - soft).detach().norm()) > 1e-3
    # the gradient of output weights is the value of the units, which no sigmoid changes
    torch.testing.assert_close(hard[-8:], soft[-8:])
    for name, value in weights.items():
        torch.testing.assert_close(value, before[name])


def test_margin_gradient_agrees_with_autograd() -> None:
    model = MLP(hidden=(3,)).build((2,), 3).double()
    inputs, labels = torch.rand(2, 2, dtype=torch.float64), torch.tensor([2, 0])
    total = (margins(model(inputs), labels) * torch.tensor([1.0, 3.0])).sum()
    expected = torch.cat([slope.flatten() for slope in torch.autograd.grad(total, list(model.parameters()))])
    weights = {name: value.detach() for name, value in model.named_parameters()}
    multipliers = torch.tensor([1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(margin_gradient(model, weights, inputs, labels, multipliers), expected)


def rows_and_weights() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear model of two rows with multipliers 2 and 0.5, of different labels."""
    model, inputs, labels = torch.nn.Linear(3, 2, bias=False), torch.eye(3)[:2].double(), torch.tensor([1, 0])
    none = {"weight": torch.zeros(2, 3, dtype=torch.float64)}
    multipliers = torch.tensor([2.0, 0.5], dtype=torch.float64)
    return model, inputs, labels, margin_gradient(model, none, inputs, labels, multipliers).detach().reshape(2, 3)


def test_rows_of_a_combination_explain_it() -> None:
    model, inputs, labels, weight = rows_and_weights()
    torch.testing.assert_close(weight, torch.tensor([[-2.0, 0.5, 0.0], [2.0, -0.5, 0.0]], dtype=torch.float64))
    assert unexplained_share(model, {"weight": weight}, inputs, labels) < 1e-12
    # one row of two is missing: what is left has the length 0.5 of sqrt(2² + 0.5²)
    rest = unexplained_share(model, {"weight": weight}, inputs[:1], labels[:1])
    assert rest == pytest.approx(0.5 / math.hypot(2, 0.5))


def test_multipliers_of_rows_are_not_negative() -> None:
    model, inputs, labels, weight = rows_and_weights()
    assert unexplained_share(model, {"weight": -weight}, inputs, labels) == pytest.approx(1.0)
    assert unexplained_share(model, {"weight": weight}, inputs, 1 - labels) == pytest.approx(1.0)


def test_without_rows_nothing_is_explained() -> None:
    model, inputs, labels, weight = rows_and_weights()
    assert unexplained_share(model, {"weight": weight}, inputs[:0], labels[:0]) == 1.0


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_weights_without_a_direction_have_no_residual(value: float) -> None:
    model, inputs, labels, weight = rows_and_weights()
    assert math.isnan(unexplained_share(model, {"weight": torch.full_like(weight, value)}, inputs, labels))


def test_gradients_that_are_not_finite_have_no_residual() -> None:
    model = MLP(hidden=(2,)).build((2,), 2)
    weights = {name: torch.ones_like(value) for name, value in model.named_parameters()}
    assert math.isnan(unexplained_share(model, weights, torch.full((1, 2), math.inf), torch.tensor([1])))


def test_a_residual_that_is_not_solved_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(*_: object, **__: object) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    model, inputs, labels, weight = rows_and_weights()
    monkeypatch.setattr("scipy.optimize.nnls", gives_up)
    assert math.isnan(unexplained_share(model, {"weight": weight}, inputs, labels))


def test_margins_of_ties_and_of_wrong_rows() -> None:
    outputs = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 5.0], [4.0, -1.0, 1.0]])
    assert margins(outputs, torch.tensor([0, 1, 0])).tolist() == [0.0, -3.0, 3.0]


@pytest.mark.parametrize(
    ("points", "low", "high"), [([[3.6, 1.2], [-3.0, -2.0]], 0.0, 1e-6), ([[0.9, 0.3], [0.2, 0.8]], 0.3, 0.6)]
)
def test_an_optimum_is_explained_unless_units_end_at_rows(points: list[list[float]], low: float, high: float) -> None:
    """Rows of two labels in one direction leave no unit that fires for one of them and ends short of the other."""
    torch.manual_seed(0)
    model, labels = MLP(hidden=(8,), biases="first", initial_scale=0.3).build((2,), 2).double(), torch.tensor([1, 0])
    inputs = torch.tensor(points).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=0.02)
    for _ in range(500):
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(model(inputs), labels))
        optimizer.step()
    assert low <= unexplained_share(model, dict(model.named_parameters()), inputs, labels) <= high
