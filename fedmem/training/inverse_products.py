"""Products of vectors with the inverse of a damped positive semi-definite matrix, and with truncated series of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""Vectors (q, P) -> the matrix times each of them, (q, P)."""


def solve_dense(matrix: Tensor, damping: float, vectors: Tensor) -> Tensor:
    """(q, P) (G + λI)⁻¹ v by a Cholesky factor; NaN where the damped matrix is not positive definite.

    By rounding, a singular matrix may have a factor. So a pivot as small as rounding of the diagonal counts as none.

    >>> solve_dense(torch.eye(2).double(), 3.0, torch.tensor([[4.0, 2.0]]).double()).tolist()
    [[1.0, 0.5]]
    """
    damped = matrix + damping * torch.eye(len(matrix), dtype=matrix.dtype)
    factor, status = torch.linalg.cholesky_ex(damped)
    rounding = len(damped) * torch.finfo(damped.dtype).eps * damped.diagonal().max()
    if int(status) or not bool(factor.diagonal().square().min() > rounding):
        return torch.full_like(vectors, torch.nan)
    return torch.cholesky_solve(vectors.T, factor).T


def solve_by_conjugate_gradients(
    product: Product, damping: float, vectors: Tensor, *, tolerance: float = 1e-10, iterations: int = 2000
) -> Tensor:
    """(q, P) (G + λI)⁻¹ v by conjugate gradients; NaN for a vector whose residual stays above `tolerance` · ‖v‖.

    A vector of zero has the solution zero. The residual is computed again at the end. No vector depends on another.

    >>> matrix = torch.diag(torch.tensor([1.0, 3.0]).double())
    >>> solve_by_conjugate_gradients(lambda v: v @ matrix, 1.0, torch.tensor([[2.0, 4.0]]).double()).tolist()
    [[1.0, 1.0]]
    """

    def damped_product(some: Tensor) -> Tensor:
        return product(some) + damping * some

    solution, residual = torch.zeros_like(vectors), vectors.clone()
    direction, squares = residual.clone(), residual.square().sum(dim=1)
    limit = tolerance**2 * squares
    is_stopped = torch.zeros_like(squares, dtype=torch.bool)
    for _ in range(iterations):
        # the recursion drifts from the true residual, so that it goes on for a while below the limit
        open_rows = (squares > 0.01 * limit) & ~is_stopped
        if not bool(open_rows.any()):
            break
        image = damped_product(direction[open_rows])
        along = (direction[open_rows] * image).sum(dim=1)
        if not bool((along > 0).all()):
            # no step is left for these; the others go on
            is_stopped[open_rows] = ~(along > 0)
            continue
        step = (squares[open_rows] / along)[:, None]
        solution[open_rows] += step * direction[open_rows]
        residual[open_rows] -= step * image
        after = residual[open_rows].square().sum(dim=1)
        direction[open_rows] = residual[open_rows] + (after / squares[open_rows])[:, None] * direction[open_rows]
        squares[open_rows] = after
    is_solved = (vectors - damped_product(solution)).square().sum(dim=1) <= limit
    solution[~is_solved] = torch.nan
    return solution


def largest_eigenvalue(product: Product, start: Tensor, iterations: int = 30) -> float:
    """The largest eigenvalue, from below, by power iteration from a vector (P,).

    >>> matrix = torch.diag(torch.tensor([1.0, 3.0]).double())
    >>> round(largest_eigenvalue(lambda v: v @ matrix, torch.ones(2).double()), 6)
    3.0
    """
    vector = start / start.norm()
    value = 0.0
    for _ in range(iterations):
        image = product(vector[None])[0]
        value = float(image.norm())
        if not value > 0:
            return value
        vector = image / value
    return value


def lissa(product: Product, damping: float, vectors: Tensor, *, scale: float, depth: int) -> Tensor:
    """(q, P) the series (1/scale) Σ_{s<depth} (I − (G + λI)/scale)^s v, which tends to (G + λI)⁻¹ v.

    It converges for a scale above half the largest eigenvalue of G + λI. A division by `scale` is part of it, and none
    follows. LiSSA multiplies by the matrix of some rows drawn at each term; here it is that of all, without noise.

    >>> matrix = torch.diag(torch.tensor([1.0, 3.0]).double())
    >>> first = lissa(lambda v: v @ matrix, 1.0, torch.tensor([[2.0, 4.0]]).double(), scale=4.0, depth=1)
    >>> many = lissa(lambda v: v @ matrix, 1.0, torch.tensor([[2.0, 4.0]]).double(), scale=4.0, depth=80)
    >>> first.tolist(), many.round(decimals=9).tolist()
    ([[0.5, 1.0]], [[1.0, 1.0]])
    """
    value = torch.zeros_like(vectors)
    for _ in range(depth):
        value = value + (vectors - product(value) - damping * value) / scale
    return value


def local_response(
    product: Product, vectors: Tensor, learning_rates: Sequence[float], *, momentum: float = 0.0
) -> Tensor:
    """(q, P) how far steps of gradient descent move parameters against a constant force that is added to the gradient.

    u_{s+1} = u_s − η_s m_{s+1} with m_{s+1} = momentum · m_s + G u_s − v, from u_0 = m_0 = 0. Without momentum and with
    one rate η it is η Σ_{s<K} (I − ηG)^s v: LiSSA of scale 1/η and depth K, without damping. It tends to G⁻¹ v.

    >>> local_response(lambda u: 2 * u, torch.ones(1, 1).double(), [0.25, 0.25]).tolist()
    [[0.375]]
    """
    value, velocity = torch.zeros_like(vectors), torch.zeros_like(vectors)
    for rate in learning_rates:
        velocity = momentum * velocity + product(value) - vectors
        value = value - rate * velocity
    return value
