"""Gradients of the margins of single rows, and the regression on them that TRAK puts in the place of a network."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedmem.contracts.arrays import IntArray
from fedmem.training.gauss_newton import NUMBERS, FlatModel
from fedmem.training.inverse_products import solve_dense


def margins_of_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,) log(p / (1 − p)) of the probability p of each label, from logits (n, C).

    It is the logit of the label minus the log of the sum of the others' exponentials. So it stays finite where p is 1
    up to rounding.

    >>> margins_of_labels(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])).tolist()
    [1.0, 0.0]
    """
    is_label = torch.arange(outputs.shape[-1], device=targets.device) == targets[..., None]
    own = outputs.gather(-1, targets[..., None])[..., 0]
    return own - outputs.masked_fill(is_label, -torch.inf).logsumexp(dim=-1)


def random_signs(rows: int, columns: int, rng: np.random.Generator) -> Tensor:
    """(rows, columns) a random projection: entries −1 and 1 as int8, to be divided by √columns.

    >>> random_signs(2, 3, np.random.default_rng(0)).abs().tolist()
    [[1, 1, 1], [1, 1, 1]]
    """
    return torch.from_numpy(rng.integers(0, 2, size=(rows, columns), dtype=np.int8) * np.int8(2) - np.int8(1))


_PART = 2**16
"""Entries that are projected at once."""


def project(signs: Tensor, vector: Tensor) -> Tensor:
    """(q,) the random projection S x / √q of a vector (P,) by (q, P) signs, in float64 and a part at a time.

    >>> project(random_signs(4, 1, np.random.default_rng(0)), torch.tensor([3.0]).double()).square().sum().item()
    9.0
    """
    products = sum(
        signs[:, start : start + _PART].double() @ vector[start : start + _PART]
        for start in range(0, len(vector), _PART)
    )
    return products / math.sqrt(len(signs))  # type: ignore[return-value]


class MarginGradients:
    """(n, d) gradients of the margins of rows at one model, as they are or projected.

    Args:
        model: The model.
        signs: (P, d) a random projection, see `random_signs`; None for the gradients themselves, with d = P.
    """

    def __init__(self, model: FlatModel, signs: Tensor | None = None) -> None:
        self._model, self._signs = model, signs

    @property
    def size(self) -> int:
        """d."""
        return len(self._model.vector) if self._signs is None else self._signs.shape[1]

    def of(self, inputs: Tensor, targets: IntArray) -> tuple[Tensor, Tensor]:
        """(n, d) the gradients of rows in float64, and (n,) 1 − p of their labels."""
        labels = torch.from_numpy(targets)
        features = torch.empty(len(inputs), self.size, dtype=torch.float64)
        doubts = torch.empty(len(inputs), dtype=torch.float64)
        at_once = max(1, NUMBERS // max(1, len(self._model.vector)))
        for start in range(0, len(inputs), at_once):
            part = slice(start, start + at_once)
            gradients = self._model.gradients(inputs[part], labels[part], of=margins_of_labels)
            features[part] = gradients if self._signs is None else self._project(gradients)
            outputs = self._model.outputs(self._model.vector, inputs[part])
            doubts[part] = torch.sigmoid(-margins_of_labels(outputs, labels[part]))
        return features, doubts

    def _project(self, gradients: Tensor) -> Tensor:
        assert self._signs is not None
        total = torch.zeros(len(gradients), self.size, dtype=torch.float64)
        at_once = max(1, NUMBERS // self.size)
        for start in range(0, len(self._signs), at_once):
            part = slice(start, start + at_once)
            total += gradients[:, part] @ self._signs[part].double()
        projected: Tensor = total / self.size**0.5
        return projected


def regression_products(features: Tensor, weights: Tensor, vectors: Tensor, damping: float) -> Tensor:
    """(q, d) (Φᵀ W Φ + λI)⁻¹ v, with the rows Φ (n, d), their weights W (n,) and vectors (q, d).

    λ is `damping` × the mean of the diagonal of Φᵀ W Φ. With fewer rows than columns, the equal formula with a matrix
    (n, n) is used. NaN where the matrix is singular: without damping always so with fewer rows than columns.

    >>> rows, both = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([0.5, 0.5]).double()
    >>> regression_products(rows, both, torch.tensor([[1.0, 1.0]]).double(), 0.0).round(decimals=9).tolist()
    [[2.0, 0.5]]
    """
    rows = features * weights.sqrt()[:, None]
    scale = damping * float(rows.square().sum()) / features.shape[1]
    if len(rows) >= features.shape[1] or not scale > 0:
        return solve_dense(rows.T @ rows, scale, vectors)
    inner = solve_dense(rows @ rows.T, scale, vectors @ rows.T)
    return (vectors - inner @ rows) / scale
