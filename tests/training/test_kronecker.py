"""Tests of `fedmem/training/kronecker.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmem.training.derivatives import double
from fedmem.training.gauss_newton import FlatModel, GaussNewton
from fedmem.training.kronecker import EigenKronecker, _factors
from tests.training.test_derivatives import DATA, Recurrent, convolution, dense, params_of, recurrent
from tests.training.test_gauss_newton import WEIGHTS, loop_matrix


def matrix_of(network: nn.Module, inputs: Tensor | None = None, decay: float = 0.2) -> GaussNewton:
    rows = double(DATA[0]) if inputs is None else inputs
    return GaussNewton(FlatModel(network, params_of(network)), rows, WEIGHTS[: len(rows)], decay=decay)


def approximation(factored: EigenKronecker, size: int) -> Tensor:
    """The matrix that is approximated, from what its inverse does to each axis."""
    matrix: Tensor = torch.linalg.inv(factored.solve(torch.eye(size).double(), 0.0))
    return matrix


def test_equal_inputs_of_one_layer_need_no_approximation() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).double()
    matrix = matrix_of(layer, torch.tensor([1.0, -2.0, 0.5, 3.0]).double().expand(6, 4))
    vectors = torch.randn(3, matrix.size).double()
    exact = torch.linalg.solve(matrix.dense() + 0.1 * torch.eye(matrix.size).double(), vectors.T).T
    torch.testing.assert_close(EigenKronecker(matrix).solve(vectors, 0.1), exact, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("make", [dense, convolution, recurrent])
def test_diagonal_and_trace_are_those_of_the_matrix(make: Callable[[], nn.Module]) -> None:
    """Blocks keep the trace, since a rotation does; layers that have no factors keep the diagonal itself."""
    network = make()
    matrix, expected = matrix_of(network), loop_matrix(network, 0.2)
    factored = EigenKronecker(matrix)
    assert float(factored.eigenvalues.sum()) == pytest.approx(float(expected.trace()), rel=1e-10)
    found, start = approximation(factored, matrix.size), 0
    for name, value in network.named_parameters():
        part = slice(start, start + value.numel())
        start += value.numel()
        if "rnn" in name or (make is convolution and name.startswith("1.")):
            block = torch.diag(expected[part, part].diagonal())
            torch.testing.assert_close(found[part, part], block, rtol=1e-8, atol=1e-10)
        assert float(found[part, part].trace()) == pytest.approx(float(expected[part, part].trace()), rel=0.5)


def test_bases_are_those_of_inputs_and_slopes() -> None:
    network = dense()
    flatten, first, _, last = network.children()
    sums = {name: [0.0, 0.0] for name in ("1.weight", "3.weight")}
    for weight, x in zip(WEIGHTS.tolist(), double(DATA[0]), strict=True):
        given = flatten(x[None])
        hidden = first(given)
        logits = last(hidden.tanh())
        p = logits[0].detach().softmax(dim=0)
        for label in range(5):
            # the Fisher information of labels drawn from the model is the Gauss–Newton matrix
            error = p - nn.functional.one_hot(torch.tensor(label), 5)
            inner, outer = torch.autograd.grad(logits[0] @ error, (hidden, logits), retain_graph=True)
            sums["1.weight"][1] += weight * p[label] * torch.outer(inner[0], inner[0])
            sums["3.weight"][1] += weight * p[label] * torch.outer(outer[0], outer[0])
        one = torch.cat([given[0], torch.ones(1).double()])
        sums["1.weight"][0] += weight * torch.outer(one, one)
        sums["3.weight"][0] += (weight * torch.outer(hidden[0].tanh(), hidden[0].tanh())).detach()
    for layer, (inputs, outputs) in _factors(matrix_of(network)):
        torch.testing.assert_close(inputs, sums[layer.weight][0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(outputs, sums[layer.weight][1], rtol=1e-9, atol=1e-12)


def test_convolution_sums_over_its_places() -> None:
    network = convolution()
    layer, (inputs, outputs) = next(iter(_factors(matrix_of(network))))
    assert (layer.weight, inputs.shape, outputs.shape) == ("0.weight", (10, 10), (3, 3))
    expected = torch.zeros(10, 10).double()
    for weight, image in zip(WEIGHTS.tolist(), double(DATA[0]), strict=True):
        for row in range(4):
            for column in range(4):
                patch = torch.cat([image[0, row : row + 3, column : column + 3].flatten(), torch.ones(1).double()])
                expected += weight * torch.outer(patch, patch)
    torch.testing.assert_close(inputs, expected)
    # the bias of a filter sees the sum of its slopes, and the factor that of their squares
    assert (outputs.diagonal() > 0).all()


def test_eigenvalues_are_the_true_diagonal_and_not_products() -> None:
    """Among matrices with these eigenvectors it is the nearest; products of eigenvalues (K-FAC) are farther."""
    network = dense()
    matrix = matrix_of(network, decay=0.0)
    factored, exact = EigenKronecker(matrix), matrix.dense()
    basis = factored._rotate(torch.eye(matrix.size).double())
    torch.testing.assert_close(factored.eigenvalues, (basis.T @ exact @ basis).diagonal())
    found = basis @ torch.diag(factored.eigenvalues) @ basis.T
    parts = [torch.kron(outputs, inputs) for _, (inputs, outputs) in _factors(matrix)]
    first = 7 * 37
    # weights and the bias of the first layer, in the order of the Kronecker product
    order = torch.tensor([*(row * 36 + i if i < 36 else 252 + row for row in range(7) for i in range(37))])
    near, true = (some[:first, :first][order][:, order] for some in (found, exact))
    assert float((near - true).norm()) < float((parts[0] - true).norm())
    for wrong in (0.9, 1.1):
        other = basis @ torch.diag(wrong * factored.eigenvalues) @ basis.T
        assert float((found - exact).norm()) < float((other - exact).norm())


def test_layers_that_are_called_twice_keep_their_diagonal() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(36, 36, bias=False), nn.Linear(36, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(self.layer(x.flatten(1)).tanh()).tanh())  # type: ignore[no-any-return]

    torch.manual_seed(0)
    network = Twice().double()
    assert [layer.weight for layer, _ in _factors(matrix_of(network))] == ["head.weight"]
    assert [layer.weight for layer, _ in _factors(matrix_of(Recurrent().double()))] == ["head.weight"]
    assert not network.layer._forward_hooks, "no hook is left"


def test_singular_matrices_are_refused() -> None:
    matrix = matrix_of(dense(), decay=0.0)
    vectors = torch.ones(2, matrix.size).double()
    assert EigenKronecker(matrix).solve(vectors, 0.0).isnan().all()
    assert EigenKronecker(matrix).solve(vectors, 1e-3).isfinite().all()


def test_places_of_passages_count_as_rows_do() -> None:
    """With one layer at each place, a passage is as many rows as it has places."""
    torch.manual_seed(0)
    layer, rows = nn.Linear(2, 3).double(), torch.randn(2, 4, 2).double()
    weights = np.array([[0.1, 0.2, 0.0, 0.2], [0.3, 0.1, 0.1, 0.0]])
    passages = GaussNewton(FlatModel(layer, params_of(layer)), rows, weights, decay=0.1)
    places = GaussNewton(FlatModel(layer, params_of(layer)), rows.flatten(0, 1), weights.flatten(), decay=0.1)
    (_, (_, found)), (_, (_, expected)) = (next(iter(_factors(one))) for one in (passages, places))
    torch.testing.assert_close(found, expected)
    assert EigenKronecker(passages).eigenvalues.sum() == pytest.approx(float(passages.dense().trace()))
