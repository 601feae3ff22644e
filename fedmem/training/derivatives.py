"""Derivatives of the losses of single examples: norms and inner products of gradients, slopes in inputs and steps.

All in float64 and exact: gradients of single examples in a batch are those of one example alone, not a batch's mean
times its size. The loss is in nats and has no weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.data import Examples
from fedmem.contracts.model import trained_parameters
from fedmem.modalities.loss import example_losses
from fedmem.training.gauss_newton import FlatModel
from fedmem.training.ghost_clipping import Layers
from fedmem.training.per_example import one_by_one

GRADIENT_NUMBERS = 1 << 22
"""Numbers of gradients of single examples that are held at once, about: 32 MB."""

ROWS = 1 << 12
"""Examples times models that go through linear layers at once."""


class ExampleGradients:
    """Norms and inner products of gradients of single examples of one network, in float64 and in evaluation mode.

    Networks of linear layers need one backward pass: the norm of an outer product is the product of the norms. For all
    others the gradients are formed, by `vmap` or, with recurrent layers, one example after the other.
    """

    def __init__(self, network: nn.Module, inputs: NDArray[np.float32]) -> None:
        self._network = network
        self._parameters = trained_parameters(network)
        self._size = max(1, sum(value.numel() for value in self._parameters.values()))
        sample = double(inputs[:2])
        self._layers = None if one_by_one(network) or not len(sample) else Layers.of(network, sample)

    def squares(
        self, models: Sequence[Params], inputs: NDArray[np.float32], targets: IntArray
    ) -> Mapping[str, FloatArray]:
        """Parameter -> (T, n) squared norm of its part of the gradient of each example at each model."""
        x, y = double(inputs), torch.from_numpy(targets)
        if self._layers is not None:
            return self._by_layers(self._layers, models, x, y)
        single = self._one_by_one if one_by_one(self._network) else self._by_vmap
        parts = [single(*split_entries(self._network, _double_params(params)), x, y) for params in models]
        return {name: np.stack([part[name] for part in parts]) for name in self._parameters}

    def inner_products(self, models: Sequence[Params], first: Examples, second: Examples | None = None) -> FloatArray:
        """(T, n, m) inner products of the gradients of n examples with those of m others, or of the n with each other.

        Of linear layers, they are products of two Gram matrices, that of the inputs and that of the slopes. A gradient
        is then never formed. All other networks form those of both sets, for one model after the other.
        """
        second = first if second is None else second
        if self._layers is None:
            return np.stack([self._products_of_rows(params, first, second) for params in models])
        parts = []
        at_once = max(1, ROWS // max(1, len(first), len(second)))
        for start in range(0, len(models), at_once):
            group = [_double_params(params) for params in models[start : start + at_once]]
            stacked = {name: torch.stack([params[name] for params in group]) for name in self._parameters}
            sides = [self._inputs_and_slopes(self._layers, stacked, side) for side in (first, second)]
            total = torch.zeros(len(group), len(first), len(second), dtype=torch.float64)
            for name, biased in self._layers.biased.items():
                (inputs, slopes), (other_inputs, other_slopes) = ((side[0][name], side[1][name]) for side in sides)
                total += (inputs @ other_inputs.mT + float(biased)) * (slopes @ other_slopes.mT)
            parts.append(total.numpy())
        return np.concatenate(parts)

    def _inputs_and_slopes(self, layers: Layers, stacked: Params, examples: Examples) -> tuple[Params, Params]:
        x, y = double(examples.inputs), torch.from_numpy(examples.targets)
        count = len(next(iter(stacked.values())))
        return layers.class_inputs_and_slopes(stacked, x.expand(count, *x.shape), y.expand(count, *y.shape))

    def _products_of_rows(self, params: Params, first: Examples, second: Examples) -> FloatArray:
        model = FlatModel(self._network, params)
        at_once = max(1, GRADIENT_NUMBERS // self._size)
        products = np.empty((len(first), len(second)))
        for i in range(0, len(first), at_once):
            own = slice(i, i + at_once)
            rows = model.gradients(double(first.inputs[own]), torch.from_numpy(first.targets[own]))
            for j in range(0, len(second), at_once):
                part = slice(j, j + at_once)
                others = model.gradients(double(second.inputs[part]), torch.from_numpy(second.targets[part]))
                products[own, part] = (rows @ others.T).numpy()
        return products

    def _by_layers(self, layers: Layers, models: Sequence[Params], x: Tensor, y: Tensor) -> dict[str, FloatArray]:
        at_once = max(1, ROWS // max(1, len(x)))
        squares: dict[str, list[FloatArray]] = {name: [] for name in self._parameters}
        for start in range(0, len(models), at_once):
            group = [_double_params(params) for params in models[start : start + at_once]]
            stacked = {name: torch.stack([params[name] for params in group]) for name in self._parameters}
            layer_inputs, slopes = layers.class_inputs_and_slopes(
                stacked, x.expand(len(group), *x.shape), y.expand(len(group), *y.shape)
            )
            for name, biased in layers.biased.items():
                slope = slopes[name].square().sum(dim=2)
                squares[f"{name}.weight"].append((layer_inputs[name].square().sum(dim=2) * slope).numpy())
                if biased:
                    squares[f"{name}.bias"].append(slope.numpy())
        return {name: np.concatenate(parts) for name, parts in squares.items()}

    def _by_vmap(self, params: Params, constant: Params, x: Tensor, y: Tensor) -> dict[str, FloatArray]:
        at_once = max(1, GRADIENT_NUMBERS // self._size)

        def loss(leaves: Params, row: Tensor, target: Tensor) -> Tensor:
            return _loss_of_one(self._network, {**leaves, **constant}, row, target)

        gradients = vmap(grad(loss), in_dims=(None, 0, 0))
        parts = []
        for start in range(0, len(x), at_once):
            of_each = gradients(params, x[start : start + at_once], y[start : start + at_once])
            parts.append({name: value.flatten(1).square().sum(dim=1).numpy() for name, value in of_each.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self._parameters}

    def _one_by_one(self, params: Params, constant: Params, x: Tensor, y: Tensor) -> dict[str, FloatArray]:
        leaves = {name: value.requires_grad_() for name, value in params.items()}
        squares: dict[str, list[float]] = {name: [] for name in self._parameters}
        for row in range(len(x)):
            with torch.enable_grad():
                loss = _loss_of_one(self._network, {**leaves, **constant}, x[row], y[row])
                gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            for name, value in zip(leaves, gradients, strict=True):
                squares[name].append(float(value.square().sum()))
        return {name: np.array(values) for name, values in squares.items()}


def input_slopes(
    function: Callable[[Tensor], Tensor], inputs: NDArray[np.float32] | Tensor, targets: IntArray, of: str = "loss"
) -> Tensor:
    """(n, ...) the slope of the loss of each example in its inputs, or of the logit of its label (`of="logit"`)."""
    x = double(inputs).requires_grad_()
    y = torch.from_numpy(targets)
    with torch.enable_grad():
        outputs = function(x)
        values = example_losses(outputs, y) if of == "loss" else outputs.gather(1, y[:, None])[:, 0]
        (slope,) = torch.autograd.grad(values.sum(), x)
    return slope.detach()


def input_hessian_product(
    function: Callable[[Tensor], Tensor], inputs: NDArray[np.float32], targets: IntArray, direction: Tensor
) -> Tensor:
    """(n, ...) the Hessian of each example's loss in its inputs, times a direction (...) or (n, ...): exact."""
    x = double(inputs).requires_grad_()
    with torch.enable_grad():
        losses = example_losses(function(x), torch.from_numpy(targets))
        (slope,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
        (product,) = torch.autograd.grad((slope * direction).sum(), x)
    return product.detach()


def slopes_along(
    network: nn.Module, params: Params, direction: Params, inputs: NDArray[np.float32], targets: IntArray
) -> FloatArray:
    """(n,) the inner product of each example's gradient with a direction, by two backward passes.

    >>> from torch import nn
    >>> layer = nn.Linear(1, 2, bias=False).double()
    >>> params = {"weight": torch.zeros(2, 1, dtype=torch.float64)}
    >>> step = {"weight": torch.tensor([[1.0], [0.0]], dtype=torch.float64)}
    >>> slopes_along(layer, params, step, np.ones((1, 1), np.float32), np.array([0])).tolist()
    [-0.5]
    """
    trained, constant = split_entries(network, _double_params(params))
    leaves = {name: value.requires_grad_() for name, value in trained.items()}
    weights = torch.zeros(len(inputs), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        outputs: Tensor = functional_call(network, {**leaves, **constant}, (double(inputs),))
        losses = example_losses(outputs, torch.from_numpy(targets))
        # the gradient of the weighted sum is linear in the weights, so that its slope in them is that of each example
        parts = torch.autograd.grad(
            (weights * losses).sum(),
            list(leaves.values()),
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        along = sum((part * direction[name].double()).sum() for name, part in zip(leaves, parts, strict=True))
        assert isinstance(along, Tensor)
        (slopes,) = torch.autograd.grad(along, weights)
    return np.asarray(slopes.numpy())


def split_entries(network: nn.Module, params: Params) -> tuple[Params, Params]:
    """The trained parameters of a model, and its other entries, such as running statistics.

    >>> layer = nn.BatchNorm1d(2)
    >>> [list(part) for part in split_entries(layer, dict(layer.state_dict()))]
    [['weight', 'bias'], ['running_mean', 'running_var', 'num_batches_tracked']]
    """
    trained = trained_parameters(network)
    return (
        {name: value for name, value in params.items() if name in trained},
        {name: value for name, value in params.items() if name not in trained},
    )


def double(inputs: NDArray[np.float32] | NDArray[np.int64] | Tensor) -> Tensor:
    """Inputs as a new tensor of float64; tokens stay whole numbers."""
    tensor = inputs.detach().clone() if isinstance(inputs, Tensor) else torch.from_numpy(np.array(inputs))
    return tensor.double() if tensor.is_floating_point() else tensor


def _double_params(params: Params) -> Params:
    return {name: value.detach().to("cpu", torch.float64) for name, value in params.items()}


def _loss_of_one(network: nn.Module, params: Params, x: Tensor, y: Tensor) -> Tensor:
    outputs: Tensor = functional_call(network, params, (x[None],))
    return example_losses(outputs, y[None])[0]
