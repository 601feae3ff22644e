"""Gauss–Newton matrix of a weighted objective: its products with vectors, and the matrix itself, in float64.

The matrix is Σ_i w_i J_iᵀ H_i J_i + μ I. Here J_i is the Jacobian of the outputs of row i, H_i the Hessian of its loss
in these outputs, and μ the weight decay. It has no negative eigenvalues, unlike the Hessian of a network that is at no
optimum. For a model with linear outputs both are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vjp, vmap

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.model import trained_parameters
from fedmem.modalities.loss import UNASKED, example_losses
from fedmem.training.per_example import one_by_one

NUMBERS = 1 << 23
"""Numbers of Jacobians or of tangents that are held at once, about: 64 MB."""


class FlatModel:
    """A network whose trained parameters are one vector (P,) in float64, in the order of the network.

    Args:
        network: The network in float64 and in evaluation mode.
        params: The entries of a model. Entries that are not trained, such as running statistics, stay as they are.
    """

    def __init__(self, network: nn.Module, params: Params) -> None:
        doubled = {name: value.detach().to("cpu", torch.float64) for name, value in params.items()}
        self.shapes = {name: value.shape for name, value in trained_parameters(network).items()}
        self._constant = {name: value for name, value in doubled.items() if name not in self.shapes}
        self.network = network
        self.vector = torch.cat([doubled[name].flatten() for name in self.shapes])
        self.is_one_by_one = one_by_one(network)

    def split(self, vectors: Tensor) -> dict[str, Tensor]:
        """Parameter -> its part (..., *shape) of vectors (..., P)."""
        parts = torch.split(vectors, [shape.numel() for shape in self.shapes.values()], dim=-1)
        return {
            name: part.reshape(*part.shape[:-1], *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def outputs(self, vector: Tensor, inputs: Tensor) -> Tensor:
        """(n, C) the outputs with these parameters, of passages (n, L, C)."""
        leaves = self.split(vector)
        outputs: Tensor = functional_call(self.network, {**leaves, **self._constant}, (inputs,))
        return outputs

    def gradients(
        self, inputs: Tensor, targets: Tensor, *, of: Callable[[Tensor, Tensor], Tensor] = example_losses
    ) -> Tensor:
        """(n, P) the gradient of the loss of each row, without weight decay, or of another value of its outputs."""

        def loss(vector: Tensor, row: Tensor, target: Tensor) -> Tensor:
            return of(self.outputs(vector, row[None]), target[None])[0]

        if not len(inputs):
            return self.vector.new_zeros(0, len(self.vector))
        if not self.is_one_by_one:
            gradients: Tensor = vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(self.vector, inputs, targets)
            return gradients
        return torch.stack([_gradient(loss, self.vector, row, y) for row, y in zip(inputs, targets, strict=True)])

    def jacobians(self, inputs: Tensor) -> Tensor:
        """(n, C, P) the Jacobian of the outputs of each row, of passages (n, L, C, P)."""
        if not self.is_one_by_one:
            one_row = jacrev(lambda vector, row: self.outputs(vector, row[None])[0])
            jacobians: Tensor = vmap(one_row, in_dims=(None, 0))(self.vector, inputs)
            return jacobians
        return torch.stack(
            [_jacobian(lambda vector, x: self.outputs(vector, x[None])[0], self.vector, x) for x in inputs]
        )


def _gradient(function: Callable[..., Tensor], vector: Tensor, *arguments: Tensor) -> Tensor:
    leaf = vector.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(function(leaf, *arguments), leaf)
    return gradient


def _jacobian(function: Callable[[Tensor, Tensor], Tensor], vector: Tensor, row: Tensor) -> Tensor:
    leaf = vector.detach().requires_grad_()
    with torch.enable_grad():
        outputs = function(leaf, row)
        rows = [torch.autograd.grad(output, leaf, retain_graph=True)[0] for output in outputs.flatten()]
    return torch.stack(rows).view(*outputs.shape, -1)


def softmax_factor(logits: Tensor) -> Tensor:
    """(n, C, C) L with L Lᵀ = diag(p) − p pᵀ, the Hessian of the cross-entropy in logits (n, C); also for (n, L, C).

    >>> factor = softmax_factor(torch.zeros(1, 2, dtype=torch.float64))[0]
    >>> (factor @ factor.T).round(decimals=9).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    p = logits.softmax(dim=-1)
    root = p.sqrt()
    return torch.diag_embed(root) - p[..., :, None] * root[..., None, :]


def place_weights(weights: FloatArray, targets: IntArray) -> FloatArray:
    """(n,) or (n, L) the weights of single outputs from those of rows (n,): each place that is asked has its share.

    >>> place_weights(np.array([0.5]), np.array([[3, 1, -1]])).tolist()
    [[0.25, 0.25, 0.0]]
    """
    if targets.ndim == 1:
        return weights
    is_asked = targets != UNASKED
    return np.asarray(weights[:, None] * is_asked / np.maximum(is_asked.sum(axis=1, keepdims=True), 1))


class GaussNewton:
    """The Gauss–Newton matrix of Σ_i w_i ℓ_i + μ/2 ‖θ‖² at one model.

    Args:
        model: The model.
        inputs: (n, ...) the rows, in float64.
        weights: (n,) w_i; 1/n each for a mean. Of passages (n, L), see `place_weights`.
        decay: The weight decay μ.
        factor: Outputs (n, C) -> (n, C, k), L_i with H_i = L_i L_iᵀ. By default it is that of the cross-entropy.
            Outputs of passages (n, L, C) have one at each place.

    Examples:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
        >>> squared = lambda outputs: torch.ones(len(outputs), 1, 1).double()
        >>> model = FlatModel(layer, dict(layer.named_parameters()))
        >>> matrix = GaussNewton(model, rows, np.array([0.5, 0.5]), decay=0.1, factor=squared)
        >>> matrix.dense().round(decimals=9).tolist()
        [[0.6, 0.0], [0.0, 2.1]]
        >>> matrix.product(torch.tensor([[1.0, 1.0]]).double()).tolist(), round(matrix.mean_diagonal(), 9)
        ([[0.6, 2.1]], 1.35)
        >>> matrix.diagonal().round(decimals=9).tolist()
        [0.6, 2.1]
    """

    def __init__(
        self,
        model: FlatModel,
        inputs: Tensor,
        weights: FloatArray,
        *,
        decay: float = 0.0,
        factor: Callable[[Tensor], Tensor] = softmax_factor,
    ) -> None:
        self.model, self._inputs, self.decay = model, inputs, decay
        self.weights = torch.from_numpy(weights).double()
        with torch.no_grad():
            shape = (*weights.shape, 1)
            outputs = model.outputs(model.vector, inputs) if len(inputs) else model.vector.new_zeros(shape)
        self._factor = factor(outputs)
        self._mean_diagonal: float | None = None

    @property
    def size(self) -> int:
        """P."""
        return len(self.model.vector)

    def product(self, vectors: Tensor) -> Tensor:
        """(q, P) the matrix times each of these vectors (q, P); the matrix is never formed."""
        total = self.decay * vectors
        if not len(self._inputs) or not len(vectors):
            return total
        at_once = max(1, NUMBERS // max(1, self._inputs[0].numel() + self.size))
        for start in range(0, len(self._inputs), at_once):
            part = slice(start, start + at_once)
            total = total + self._product_of(part, vectors)
        return total

    def _product_of(self, part: slice, vectors: Tensor) -> Tensor:
        inputs, factor, weights = self._inputs[part], self._factor[part], self.weights[part]

        def outputs(vector: Tensor) -> Tensor:
            return self.model.outputs(vector, inputs)

        def slope(tangent: Tensor) -> Tensor:
            """w_i H_i times the change (n, C) of the outputs."""
            inner = torch.einsum("...ck,...c->...k", factor, tangent)
            return weights[..., None] * torch.einsum("...ck,...k->...c", factor, inner)

        back = vjp(outputs, self.model.vector)[1]
        # `back` is linear, so that its own transpose is the derivative of the outputs along a vector. Forward-mode
        # derivatives would do the same, but recurrent layers have none
        along = vjp(lambda dual: back(dual)[0], torch.zeros(factor.shape[:-1], dtype=torch.float64))[1]

        def product(vector: Tensor) -> Tensor:
            (tangent,) = along(vector)
            (product,) = back(slope(tangent))
            return product  # type: ignore[no-any-return]

        if self.model.is_one_by_one:
            return torch.stack([product(vector) for vector in vectors])
        return vmap(product)(vectors)

    def parts(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Some rows after the others: inputs (b, ...), the factors L_i (b, C, k) of their losses, and weights (b,)."""
        at_once = max(1, NUMBERS // max(1, self._factor[:1].numel() * 8, self._inputs[:1].numel()))
        for start in range(0, len(self._inputs), at_once):
            part = slice(start, start + at_once)
            yield self._inputs[part], self._factor[part], self.weights[part]

    def roots(self) -> Iterator[Tensor]:
        """(n · k, P) the rows of √w_i L_iᵀ J_i, some examples after the others."""
        at_once = max(1, NUMBERS // max(1, self._factor[:1, ..., 0].numel() * self.size))
        for start in range(0, len(self._inputs), at_once):
            part = slice(start, start + at_once)
            jacobians = self.model.jacobians(self._inputs[part])
            factor = self._factor[part] * self.weights[part].sqrt()[..., None, None]
            yield torch.einsum("...ck,...cp->...kp", factor, jacobians).flatten(0, -2)

    def dense(self) -> Tensor:
        """(P, P) the matrix."""
        total = torch.zeros(self.size, self.size, dtype=torch.float64)
        for root in self.roots():
            total.addmm_(root.T, root)
        self._mean_diagonal = float(total.diagonal().mean()) + self.decay
        return total + self.decay * torch.eye(self.size, dtype=torch.float64)

    def diagonal(self) -> Tensor:
        """(P,) the diagonal, without the matrix."""
        total = torch.zeros(self.size, dtype=torch.float64)
        for root in self.roots():
            total += root.square().sum(dim=0)
        return total + self.decay

    def mean_diagonal(self) -> float:
        """The mean of the diagonal, exactly, without the matrix."""
        if self._mean_diagonal is None:
            squares = sum(float(root.square().sum()) for root in self.roots())
            self._mean_diagonal = squares / self.size + self.decay
        return self._mean_diagonal
