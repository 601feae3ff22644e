"""EK-FAC: a Gauss–Newton matrix by blocks of layers, diagonal in bases that are Kronecker products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedmem.training.gauss_newton import FlatModel, GaussNewton


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A layer whose weights are one matrix (outputs, inputs), with the bias, if it is trained, as one more input.

    Attributes:
        weight: The name of its weights.
        bias: The name of its bias; empty where it has none that is trained.
        module: The layer.
    """

    weight: str
    bias: str
    module: nn.Linear | nn.Conv2d

    def inputs_of(self, values: Tensor) -> Tensor:
        """(n, places, inputs) what the weights multiply, with ones for the bias."""
        layer = self.module
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)
            rows = nn.functional.unfold(values, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT
        else:
            rows = values.reshape(len(values), -1, values.shape[-1])
        return torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], dim=2) if self.bias else rows

    def slopes_of(self, slopes: Tensor) -> Tensor:
        """(n, places, outputs) slopes at the outputs of the layer."""
        if isinstance(self.module, nn.Conv2d):
            return slopes.flatten(2).mT
        return slopes.reshape(len(slopes), -1, slopes.shape[-1])


class EigenKronecker:
    """The Gauss–Newton matrix as EK-FAC approximates it, at one model.

    The weights of a linear or convolutional layer, with its bias, are a matrix W (outputs × inputs). K-FAC takes the
    block of the layer for A ⊗ S. A is the weighted sum of a aᵀ over the inputs a of the layer, at all places. S is that
    of s sᵀ over the slopes s at its outputs. EK-FAC keeps of both only the eigenvectors. The eigenvalues become the
    diagonal of the true block in their basis. Of all matrices with these eigenvectors, that is the nearest to the block
    in squares. Of all other parameters only the diagonal is kept, and nothing between different layers.

    The slopes are exact: those for all outputs of each row, and of passages for those at each place. No labels are
    drawn.

    Args:
        matrix: The Gauss–Newton matrix. Its weight decay is part of the eigenvalues.

    Examples:
        With equal inputs in all rows, the block is a Kronecker product, and nothing is approximated.

        >>> import numpy as np
        >>> layer = nn.Linear(2, 3, bias=False).double()
        >>> model = FlatModel(layer, dict(layer.named_parameters()))
        >>> rows = torch.ones(4, 2).double()
        >>> matrix = GaussNewton(model, rows, np.full(4, 0.25), decay=0.1)
        >>> found = EigenKronecker(matrix).solve(torch.ones(1, 6).double(), 0.2)
        >>> exact = torch.linalg.solve(matrix.dense() + 0.2 * torch.eye(6).double(), torch.ones(6).double())
        >>> bool((found[0] - exact).abs().max() < 1e-9)
        True

    Reference: George, Laurent, Bouthillier, Ballas and Vincent (2018), Fast approximate natural gradient descent in a
    Kronecker-factored eigenbasis. Grosse et al. (2023), Studying large language model generalization with influence
    functions.
    """

    def __init__(self, matrix: GaussNewton) -> None:
        self._model = matrix.model
        self._bases = [(layer, *self._bases_of(*factors)) for layer, factors in _factors(matrix)]
        squares = torch.zeros(matrix.size, dtype=torch.float64)
        for root in matrix.roots():
            squares += self._rotate(root).square().sum(dim=0)
        self.eigenvalues = squares + matrix.decay
        """(P,) the eigenvalues, in the order of the parameters after rotation. Their sum is the trace of the matrix."""

    def solve(self, vectors: Tensor, damping: float) -> Tensor:
        """(q, P) (G + λI)⁻¹ v; NaN where an eigenvalue of G + λI is as small as rounding."""
        damped = self.eigenvalues + damping
        rounding = len(damped) * torch.finfo(damped.dtype).eps * damped.max()
        if not bool(damped.min() > rounding):
            return torch.full_like(vectors, torch.nan)
        return self._rotate(self._rotate(vectors) / damped, back=True)

    @staticmethod
    def _bases_of(inputs: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        return torch.linalg.eigh(inputs)[1], torch.linalg.eigh(slopes)[1]

    def _rotate(self, vectors: Tensor, *, back: bool = False) -> Tensor:
        """(q, P) vectors in the basis of the eigenvectors, or from there `back`."""
        parts = self._model.split(vectors)
        for layer, of_inputs, of_slopes in self._bases:
            weight = parts[layer.weight]
            block = weight.flatten(2)
            if layer.bias:
                block = torch.cat([block, parts[layer.bias][..., None]], dim=2)
            right, left = (of_inputs.T, of_slopes) if back else (of_inputs, of_slopes.T)
            block = left @ block @ right
            if layer.bias:
                parts[layer.bias] = block[..., -1]
                block = block[..., :-1]
            parts[layer.weight] = block.reshape(weight.shape)
        return torch.cat([part.flatten(1) for part in parts.values()], dim=1)


def _factors(matrix: GaussNewton) -> Iterator[tuple[_Layer, tuple[Tensor, Tensor]]]:
    """The layers that have factors, with A (inputs, inputs) and S (outputs, outputs)."""
    model = matrix.model
    layers = _layers(model)
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {layer.weight: [] for layer in layers}

    def note(layer: _Layer) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            seen[layer.weight].append((given[0], result))

        return layer.module.register_forward_hook(hook)

    sums: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [note(layer) for layer in layers]
    try:
        for inputs, factor, weights in matrix.parts():
            for calls in seen.values():
                calls.clear()
            leaf = model.vector.detach().requires_grad_()
            with torch.enable_grad():
                outputs = model.outputs(leaf, inputs)
            # a layer that is called twice, or never, has no single input
            called = [layer for layer in layers if len(seen[layer.weight]) == 1]
            results = [seen[layer.weight][0][1] for layer in called]
            for layer in called:
                values = layer.inputs_of(seen[layer.weight][0][0].detach())
                _add(
                    sums,
                    layer,
                    0,
                    torch.einsum("n,npi,npj->ij", weights.reshape(len(weights), -1).sum(dim=1), values, values),
                )
            for force, of_rows in _forces(factor, weights):
                slopes = torch.autograd.grad(
                    outputs, results, force, retain_graph=True, materialize_grads=True, allow_unused=True
                )
                for layer, slope in zip(called, slopes, strict=True):
                    values = layer.slopes_of(slope)
                    _add(sums, layer, 1, torch.einsum("n,npi,npj->ij", of_rows, values, values))
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if layer.weight in sums:
            yield layer, sums[layer.weight]


def _forces(factor: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The columns of the factors as forces at the outputs, at one place of passages alone, and the weights (n,)."""
    of_places = weights.reshape(len(weights), -1)
    columns = factor.reshape(*of_places.shape, *factor.shape[-2:])
    for place in range(of_places.shape[1]):
        for column in columns[:, place].unbind(dim=-1):
            force = torch.zeros(columns.shape[:-1], dtype=factor.dtype)
            force[:, place] = column
            yield force.reshape(factor.shape[:-1]), of_places[:, place]


def _add(sums: dict[str, tuple[Tensor, Tensor]], layer: _Layer, side: int, value: Tensor) -> None:
    zero = torch.zeros(1, 1, dtype=torch.float64)
    both = list(sums.get(layer.weight, (zero, zero)))
    both[side] = both[side] + value
    sums[layer.weight] = (both[0], both[1])


def _layers(model: FlatModel) -> list[_Layer]:
    """The linear and convolutional layers whose weights are trained, and belong to no other layer."""
    found = []
    for name, module in model.network.named_modules():
        is_plain = isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d)
            and module.groups == 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )
        start = f"{name}." if name else ""
        if is_plain and f"{start}weight" in model.shapes:
            bias = f"{start}bias"
            found.append(_Layer(weight=f"{start}weight", bias=bias if bias in model.shapes else "", module=module))
    return found
