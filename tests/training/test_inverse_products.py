"""Tests of `fedmem/training/inverse_products.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedmem.training.gauss_newton import FlatModel, GaussNewton
from fedmem.training.inverse_products import (
    largest_eigenvalue,
    lissa,
    local_response,
    solve_by_conjugate_gradients,
    solve_dense,
)

GENERATOR = torch.Generator().manual_seed(0)
ROOT = torch.randn(12, 12, generator=GENERATOR, dtype=torch.float64)
MATRIX = ROOT @ ROOT.T / 12
VECTORS = torch.randn(4, 12, generator=GENERATOR, dtype=torch.float64)


def product(vectors: Tensor) -> Tensor:
    return vectors @ MATRIX


def squared_loss(outputs: Tensor) -> Tensor:
    return torch.ones(len(outputs), 1, 1, dtype=torch.float64)


def ridge(x: Tensor, y: Tensor, decay: float, kept: Tensor) -> Tensor:
    """The minimum of Σ_{i kept} ½ e_i² / n + decay/2 ‖θ‖², where n counts all rows."""
    some, count = x[kept], len(x)
    matrix = some.T @ some / count + decay * torch.eye(x.shape[1]).double()
    solution: Tensor = torch.linalg.solve(matrix, some.T @ y[kept] / count)
    return solution


def test_ridge_change_is_exact_times_1_minus_leverage() -> None:
    """With leverage h: 1 − h of the change of the prediction, and 2 (1 − h)² / (2 − h) of that of ½ e²."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(15, 4, generator=generator, dtype=torch.float64)
    y, decay = torch.randn(15, generator=generator, dtype=torch.float64), 0.05
    everyone = torch.ones(15, dtype=torch.bool)
    theta = ridge(x, y, decay, everyone)
    model = FlatModel(nn.Linear(4, 1, bias=False).double(), {"weight": theta[None]})
    matrix = GaussNewton(model, x, np.full(15, 1 / 15), decay=decay, factor=squared_loss)
    error = x @ theta - y
    gradients = error[:, None] * x
    moves = solve_dense(matrix.dense(), 0.0, gradients) / 15
    by_cg = solve_by_conjugate_gradients(matrix.product, 0.0, gradients, tolerance=1e-14) / 15
    for j in range(15):
        kept = everyone.clone()
        kept[j] = False
        after = float(x[j] @ ridge(x, y, decay, kept) - y[j])
        h = float(x[j] @ torch.linalg.solve(matrix.dense(), x[j])) / 15
        np.testing.assert_allclose(after, float(error[j]) / (1 - h), rtol=1e-12)
        for move in (moves[j], by_cg[j]):
            np.testing.assert_allclose(float(x[j] @ move) / (after - float(error[j])), 1 - h, rtol=1e-11)
            rise = (after**2 - float(error[j]) ** 2) / 2
            np.testing.assert_allclose(float(gradients[j] @ move) / rise, 2 * (1 - h) ** 2 / (2 - h), rtol=1e-11)
        assert float(gradients[j] @ moves[j]) > 0


def test_conjugate_gradients_and_long_lissa_equal_cholesky() -> None:
    expected = solve_dense(MATRIX, 0.1, VECTORS)
    np.testing.assert_allclose(expected @ (MATRIX + 0.1 * torch.eye(12).double()), VECTORS, atol=1e-12)
    found = solve_by_conjugate_gradients(product, 0.1, VECTORS)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
    scale = largest_eigenvalue(product, VECTORS[0]) + 0.1
    far = [
        float((lissa(product, 0.1, VECTORS, scale=scale, depth=depth) - expected).norm()) for depth in (10, 100, 1000)
    ]
    assert far[0] > 10 * far[1] > 0
    assert far[2] < 1e-8


def test_what_is_not_solved_is_nan_and_zero_is_zero() -> None:
    unsolved = solve_by_conjugate_gradients(product, 0.1, torch.cat([VECTORS, 0 * VECTORS[:1]]), iterations=2)
    assert unsolved[:4].isnan().all()
    assert (unsolved[4] == 0).all()
    assert solve_by_conjugate_gradients(lambda v: 0 * v, 0.0, VECTORS).isnan().all()
    assert solve_dense(torch.zeros(12, 12).double(), 0.0, VECTORS).isnan().all()
    assert solve_by_conjugate_gradients(lambda v: -v, 0.0, VECTORS).isnan().all()


def test_vector_without_solution_spoils_no_other() -> None:
    singular = torch.diag(torch.tensor([1.0, 3.0, 0.0], dtype=torch.float64))
    vectors = torch.tensor([[1.0, 6.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = solve_by_conjugate_gradients(lambda v: v @ singular, 0.0, vectors)
    np.testing.assert_allclose(found[0], [1.0, 2.0, 0.0], rtol=1e-12)
    assert found[1:].isnan().all()


def test_singular_matrix_with_a_rounded_factor_is_nan() -> None:
    row = torch.tensor([[0.3, 0.1]], dtype=torch.float64)
    candidates = [scale * row.T @ row for scale in torch.linspace(1.0, 2.0, 200, dtype=torch.float64)]
    factored = [matrix for matrix in candidates if not int(torch.linalg.cholesky_ex(matrix)[1])]
    assert factored
    vector = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    assert all(bool(solve_dense(matrix, 0.0, vector).isnan().all()) for matrix in factored)


def test_lissa_divides_by_its_scale_once_and_adds_damping() -> None:
    """Known mistakes: another division at the end, and damping that shrinks the sum in place of the matrix."""
    exact = solve_dense(MATRIX, 0.3, VECTORS)
    top = largest_eigenvalue(product, VECTORS[0])
    for scale in (1.0 * top + 0.3, 3.0 * top, 10.0 * top):
        found = lissa(product, 0.3, VECTORS, scale=scale, depth=3000)
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-9)
        assert not torch.allclose(found / scale, exact, rtol=0.1)
        other = torch.zeros_like(VECTORS)
        for _ in range(3000):
            other = VECTORS + (1 - 0.3) * other - product(other) / scale
        assert not torch.allclose(other / scale, exact, rtol=0.1)


def test_lissa_diverges_below_half_the_largest_eigenvalue() -> None:
    largest = float(torch.linalg.eigvalsh(MATRIX)[-1])
    np.testing.assert_allclose(largest_eigenvalue(product, VECTORS[0], 300), largest, rtol=1e-6)
    assert largest_eigenvalue(lambda v: 0 * v, VECTORS[0]) == 0
    expected = solve_dense(MATRIX, 0.1, VECTORS)
    for scale, converges in ((0.55 * (largest + 0.1), True), (0.45 * (largest + 0.1), False)):
        value = lissa(product, 0.1, VECTORS, scale=scale, depth=2000)
        assert (float((value - expected).norm()) < 1e-6) == converges


def test_local_response_is_the_truncated_series() -> None:
    rate, steps = 0.1, 7
    power, total = VECTORS, torch.zeros_like(VECTORS)
    for _ in range(steps):
        total, power = total + rate * power, power - rate * power @ MATRIX
    np.testing.assert_allclose(local_response(product, VECTORS, [rate] * steps), total, rtol=1e-12)
    same = lissa(product, 0.0, VECTORS, scale=1 / rate, depth=steps)
    np.testing.assert_allclose(same, total, rtol=1e-12)
    assert (local_response(product, VECTORS, []) == 0).all()
    heavy = local_response(product, VECTORS, [rate] * 3000, momentum=0.9)
    np.testing.assert_allclose(heavy @ MATRIX, VECTORS, atol=1e-3)
