"""Tests of `fedmem/training/margin_gradients.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.training import margin_gradients
from fedmem.training.derivatives import double
from fedmem.training.gauss_newton import FlatModel
from fedmem.training.margin_gradients import MarginGradients, margins_of_labels, random_signs, regression_products
from tests.training.test_derivatives import DATA, convolution, dense, params_of, recurrent


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("make", [dense, convolution, recurrent])
def test_gradients_equal_those_of_losses_divided_by_doubts(make: Callable[[], nn.Module]) -> None:
    """∇ log(p / (1 − p)) = ∇ log p / (1 − p), by autograd alone."""
    network = make()
    found, doubts = MarginGradients(FlatModel(network, params_of(network))).of(double(DATA[0]), DATA[1])
    for row, (x, y) in enumerate(zip(*DATA, strict=True)):
        log_p = network(torch.from_numpy(x[None]).double()).log_softmax(dim=1)[0, int(y)]
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(log_p, list(network.parameters()))])
        doubt = 1.0 - float(log_p.detach().exp())
        assert float(doubts[row]) == pytest.approx(doubt, rel=1e-10)
        torch.testing.assert_close(found[row], gradient / doubt, rtol=1e-9, atol=1e-12)


def test_certain_labels_have_finite_margins_and_slopes() -> None:
    outputs = torch.tensor([[800.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    margin = margins_of_labels(outputs, torch.tensor([0]))
    assert float(margin.detach()) == pytest.approx(800.0 - np.log(1.0 + np.e))
    (slope,) = torch.autograd.grad(margin.sum(), outputs)
    assert slope.isfinite().all()
    assert float(slope[0, 0]) == 1.0


def test_projections_keep_inner_products_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    network = dense()
    model = FlatModel(network, params_of(network))
    plain, _ = MarginGradients(model).of(double(DATA[0]), DATA[1])
    whole = random_signs(len(model.vector), 4096, np.random.default_rng(0))
    projected, _ = MarginGradients(model, whole).of(double(DATA[0]), DATA[1])
    lengths = plain.norm(dim=1)
    errors = (projected @ projected.T - plain @ plain.T) / torch.outer(lengths, lengths)
    # the standard deviation of an error is √((1 + cos²) / d) at most
    assert float(errors.abs().max()) < 4 * (2 / 4096) ** 0.5
    assert float(errors.square().mean().sqrt()) > 0.2 * 4096**-0.5, "it is a projection, and not the same"
    monkeypatch.setattr(margin_gradients, "NUMBERS", 40_000)
    in_parts, _ = MarginGradients(model, whole).of(double(DATA[0]), DATA[1])
    torch.testing.assert_close(in_parts, projected)
    assert random_signs(50, 40, np.random.default_rng(1)).double().mean().abs() < 0.1


def test_ridge_regression_leaves_one_out_up_to_leverage() -> None:
    """With squared loss the first-order effect of a row on its own prediction is the exact one times 1 − h."""
    rows, y = random(30, 5), random(30, seed=1)
    weights = torch.full((30,), 1 / 30).double()
    ridge = 0.05 * float((rows.square().sum() / 30) / 5)

    def fit(counted: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.linalg.solve(
            rows.T @ (counted[:, None] * rows) + ridge * torch.eye(5), rows.T @ (counted * y)
        )
        return found

    whole = fit(weights)
    moved = regression_products(rows, weights, rows, 0.05)
    leverage = (moved * rows).sum(dim=1) / 30
    errors = y - rows @ whole
    for j in range(30):
        counted = weights.clone()
        counted[j] = 0.0
        exact = float(rows[j] @ (whole - fit(counted)))
        assert float(leverage[j] * errors[j]) == pytest.approx(exact * (1 - float(leverage[j])), rel=1e-6)


@pytest.mark.parametrize("count", [3, 40])
def test_both_formulas_equal_the_inverse(count: int) -> None:
    """Fewer rows than columns take the formula with the small matrix."""
    rows, weights = random(count, 8), random(count, seed=2).square()
    vectors = random(4, 8, seed=3)
    matrix = rows.T @ (weights[:, None] * rows)
    damped = matrix + 0.1 * matrix.diagonal().mean() * torch.eye(8).double()
    found = regression_products(rows, weights, vectors, 0.1)
    torch.testing.assert_close(found, torch.linalg.solve(damped, vectors.T).T)
    without = regression_products(rows, weights, vectors, 0.0)
    assert bool(without.isnan().all()) == (count < 8)


def test_no_rows_and_rows_of_zero_have_no_answer() -> None:
    vectors = random(2, 4)
    assert regression_products(torch.zeros(0, 4).double(), torch.zeros(0).double(), vectors, 0.1).isnan().all()
    assert regression_products(torch.zeros(3, 4).double(), torch.ones(3).double(), vectors, 0.1).isnan().all()
