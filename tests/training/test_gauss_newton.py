"""Tests of `fedmem/training/gauss_newton.py` and of inner products of gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.contracts.data import Examples
from fedmem.training.derivatives import ExampleGradients, double
from fedmem.training.gauss_newton import FlatModel, GaussNewton
from tests.training.test_derivatives import DATA, convolution, dense, params_of, recurrent

NETWORKS = [dense, convolution, recurrent]
WEIGHTS = np.array([0.1, 0.3, 0.05, 0.2, 0.15, 0.2])


def loop_gradients(network: nn.Module) -> torch.Tensor:
    rows = []
    for x, y in zip(*DATA, strict=True):
        loss = nn.functional.cross_entropy(network(torch.from_numpy(x[None]).double()), torch.tensor([y]))
        parts = torch.autograd.grad(loss, list(network.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def loop_matrix(network: nn.Module, decay: float) -> torch.Tensor:
    """Σ w_i Jᵀ (diag(p) − p pᵀ) J + decay, by a loop of autograd over rows and classes."""
    size = sum(value.numel() for value in network.parameters())
    total = decay * torch.eye(size, dtype=torch.float64)
    for weight, x in zip(WEIGHTS.tolist(), DATA[0], strict=True):
        logits = network(torch.from_numpy(x[None]).double())[0]
        rows = [torch.autograd.grad(logit, list(network.parameters()), retain_graph=True) for logit in logits]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        p = logits.detach().softmax(dim=0)
        total += weight * jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return total


@pytest.mark.parametrize("make", NETWORKS)
def test_inner_products_equal_a_loop_of_autograd(make: Callable[[], nn.Module]) -> None:
    network, rows = make(), Examples(inputs=DATA[0], targets=DATA[1], ids=np.arange(6))
    expected = loop_gradients(network)
    gradients = ExampleGradients(network, DATA[0])
    found = gradients.inner_products([params_of(network)] * 2, rows, rows.take(np.array([4, 1])))
    np.testing.assert_allclose(found, [(expected @ expected[[4, 1]].T).numpy()] * 2, rtol=1e-10, atol=1e-14)
    own = gradients.inner_products([params_of(network)], rows)[0]
    np.testing.assert_allclose(own, own.T, rtol=1e-12)
    squares = np.sum(list(gradients.squares([params_of(network)], *DATA).values()), axis=0)[0]
    np.testing.assert_allclose(np.diag(own), squares, rtol=1e-10)


@pytest.mark.parametrize("make", NETWORKS)
def test_matrix_and_products_equal_a_loop_of_autograd(make: Callable[[], nn.Module]) -> None:
    network = make()
    expected = loop_matrix(network, 0.2)
    model = FlatModel(network, params_of(network))
    np.testing.assert_allclose(
        model.gradients(double(DATA[0]), torch.from_numpy(DATA[1])), loop_gradients(network), rtol=1e-10, atol=1e-14
    )
    matrix = GaussNewton(model, double(DATA[0]), WEIGHTS, decay=0.2)
    assert matrix.mean_diagonal() == pytest.approx(float(expected.diagonal().mean()), rel=1e-12)
    torch.testing.assert_close(matrix.diagonal(), expected.diagonal(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(matrix.dense(), expected, rtol=1e-10, atol=1e-14)
    vectors = torch.randn(3, matrix.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(matrix.product(vectors), vectors @ expected, rtol=1e-10, atol=1e-13)


def test_matrix_is_the_hessian_where_outputs_are_linear() -> None:
    layer = nn.Sequential(nn.Flatten(), nn.Linear(36, 5)).double()
    model = FlatModel(layer, params_of(layer))
    x, y = double(DATA[0]), torch.from_numpy(DATA[1])

    def objective(vector: torch.Tensor) -> torch.Tensor:
        losses = nn.functional.cross_entropy(model.outputs(vector, x), y, reduction="none")
        return (torch.from_numpy(WEIGHTS) * losses).sum() + 0.1 * vector.square().sum()

    hessian = torch.autograd.functional.hessian(objective, model.vector)  # type: ignore[no-untyped-call]
    matrix = GaussNewton(model, x, WEIGHTS, decay=0.2).dense()
    np.testing.assert_allclose(matrix, hessian, rtol=1e-9, atol=1e-12)


def test_rows_in_groups_and_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    network = dense()
    model = FlatModel(network, params_of(network))
    vectors = torch.ones(2, len(model.vector), dtype=torch.float64)
    whole = GaussNewton(model, double(DATA[0]), WEIGHTS)
    expected = whole.dense(), whole.product(vectors)
    monkeypatch.setattr("fedmem.training.gauss_newton.NUMBERS", 4 * len(model.vector) * 2)
    groups = GaussNewton(model, double(DATA[0]), WEIGHTS)
    np.testing.assert_allclose(groups.dense(), expected[0], atol=1e-14)
    np.testing.assert_allclose(groups.product(vectors), expected[1], atol=1e-13)
    empty = GaussNewton(model, double(DATA[0][:0]), np.zeros(0), decay=0.5)
    assert (empty.product(vectors) == 0.5 * vectors).all()
    assert empty.mean_diagonal() == 0.5
    assert len(model.gradients(double(DATA[0][:0]), torch.from_numpy(DATA[1][:0]))) == 0
