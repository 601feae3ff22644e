"""How near the gradients of reconstructions are to those of the targets, for many problems at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.attacks._layers import Reader, reader
from fedmem.attacks._problems import Problem
from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import GradientTarget

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Matching:
    """S problems of one model with the same parameters; those with fewer images are padded, without weight.

    Let G be the gradient of the mean cross-entropy of the images of a problem, and T that of its target. Some models
    have parameters only in layers that `_layers` can read. There the inner products <G, T> and <G, G> come from one
    forward and one backward pass of all images. Otherwise every problem has a copy of the parameters and its gradient
    is built, under `torch.vmap`. The first way is compared with a plain gradient on the first problem, so that no
    unknown layer is trusted.

    Guarantees: Both ways agree up to rounding, in float64 to 1e-7. Both can be differentiated in the images and in the
    label weights. The model is not changed.
    """

    starts: Tensor
    """(S, n, *shape)."""
    counts: list[int]
    """Images of each problem."""
    weights: Tensor
    """(S, n) the share of each image in the loss of its problem, 0 on padding."""
    labels: Tensor
    """(S, n, C) one-hot."""
    lengths: Tensor
    """(S,) of the targets' gradients."""

    def __init__(self, problems: Sequence[Problem], dtype: torch.dtype | None = None) -> None:
        import torch

        dtype = dtype or torch.float32
        targets = [problem.target for problem in problems]
        self.axes = grid_axes(targets[0])
        self.counts = [len(problem.labels) for problem in problems]
        self.starts, self.labels, self.weights = pad_problems(problems, dtype)
        device = self.starts.device
        directions, self.lengths = directions_of([target.gradient for target in targets], dtype)
        self._directions = {name: value.to(device) for name, value in directions.items()}
        self.lengths = self.lengths.to(device)
        shared = _shared_model(targets[0], dtype)
        if shared is not None and not self._matches_plain_gradient(shared, problems[0]):
            shared = None
        self._gradients: _Shared | _Own = shared or _Own(targets[0], dtype)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def has_shared_parameters(self) -> bool:
        """Whether the parameters are those of all problems."""
        return isinstance(self._gradients, _Shared)

    def take(self, rows: Tensor) -> Matching:
        """These problems alone."""
        subset = copy.copy(self)
        subset.starts, subset.weights, subset.labels, subset.lengths = (
            value[rows] for value in (self.starts, self.weights, self.labels, self.lengths)
        )
        subset.counts = [self.counts[i] for i in rows.tolist()]
        subset._directions = {name: value[rows] for name, value in self._directions.items()}
        return subset

    def products(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(S,) <G, T> / |T| and (S,) <G, G>, at images (S, n, *shape) with label weights (S, n, C)."""
        label_weights = self.labels if labels is None else labels
        return self._gradients.products(images, label_weights, self.weights, self._directions)

    def cosine(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(S,) 1 - <G, T> / (|G| |T|), in 0..2; NaN without a direction."""
        dot, square = self.products(images, labels)
        return 1.0 - dot / (square + 1e-24).sqrt()

    def euclid(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(S,) |G - T|² / |T|², from 0 on; NaN without a direction."""
        dot, square = self.products(images, labels)
        return square / self.lengths.square() - 2.0 * dot / self.lengths + 1.0

    def _matches_plain_gradient(self, shared: _Shared, problem: Problem) -> bool:
        """Whether the products of a problem in the stack are those of its plain gradient alone."""
        import torch

        try:
            dot, square = shared.products(
                self.starts.detach().requires_grad_(), self.labels, self.weights, self._directions
            )
        except _Unknown:
            return False
        count = self.counts[0]
        plain = _plain_gradient(problem.target, self.starts[0, :count], self.labels[0, :count])
        expected = torch.stack(
            [
                sum((plain[name] * value[0]).sum() for name, value in self._directions.items()),  # type: ignore[list-item]
                sum(plain[name].square().sum() for name in self._directions),  # type: ignore[list-item]
            ]
        )
        products = torch.stack([dot[0], square[0]]).detach()
        scale = expected[1].sqrt()
        # the product may be small beside the lengths
        errors = (products - expected).abs() / torch.stack([scale, expected[1]]).clamp(min=1e-30)
        return bool(((errors < 1e-3) | ~expected.isfinite()).all())


class _Unknown(Exception):
    """A network does something that its layers alone do not explain."""


class _Shared:
    """One set of parameters: a copy of the model that notes what goes into its layers."""

    def __init__(self, model: nn.Module, readers: dict[str, Reader]) -> None:
        self._model = model
        self._readers = readers
        self._inputs: dict[str, tuple[Tensor, Any]] = {}
        for name in readers:
            model.get_submodule(name).register_forward_hook(lambda *call, name=name: self._note(name, *call))

    def _note(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        from torch.autograd.graph import get_gradient_edge

        if name in self._inputs or not output.requires_grad:
            raise _Unknown(name)
        # an edge stays where it is, even if what follows is done in place
        self._inputs[name] = inputs[0], get_gradient_edge(output)

    def products(self, images: Tensor, labels: Tensor, weights: Tensor, directions: Params) -> tuple[Tensor, Tensor]:
        import torch

        further = images.requires_grad and torch.is_grad_enabled()
        self._inputs.clear()
        with torch.enable_grad():
            points = images if images.requires_grad else images.detach().requires_grad_()
            outputs = self._model(points.flatten(0, 1))
            arrivals = dict(self._inputs)
            if set(arrivals) != set(self._readers):
                raise _Unknown
            # the slope of the cross-entropy at the outputs, in closed form
            given_labels = labels.flatten(0, 1)
            slope = (outputs.softmax(-1) * given_labels.sum(-1, keepdim=True) - given_labels) * weights.flatten()[
                :, None
            ]
            edges = [edge for _, edge in arrivals.values()]
            slopes = torch.autograd.grad(outputs, edges, slope, create_graph=further)
            dots, squares = [], []
            for (name, (inputs, _)), layer_slopes in zip(arrivals.items(), slopes, strict=True):
                for part, gradient in self._readers[name](inputs, layer_slopes, len(images)).items():
                    direction = directions.get(f"{name}.{part}" if name else part)
                    if direction is not None:
                        dot, square = gradient.products(direction)
                        dots.append(dot)
                        squares.append(square)
        self._inputs.clear()
        return torch.stack(dots).sum(0), torch.stack(squares).sum(0)


class _Own:
    """Every problem has a copy of the parameters, and its gradient is built."""

    def __init__(self, target: GradientTarget, dtype: torch.dtype) -> None:
        self._model = copy.deepcopy(target.model).to(dtype)
        self._params = {name: value.detach().to(dtype) for name, value in target.params.items()}

    def products(self, images: Tensor, labels: Tensor, weights: Tensor, directions: Params) -> tuple[Tensor, Tensor]:
        import torch
        from torch.func import functional_call

        further = images.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            params = {
                name: value.expand(len(images), *value.shape).clone().requires_grad_()
                for name, value in self._params.items()
            }
            outputs = torch.vmap(lambda problem_params, x: functional_call(self._model, problem_params, (x,)))(
                params, images
            )
            losses = -(outputs.log_softmax(-1) * labels).sum(-1)
            # Every problem has parameters of its own, so the gradient of the sum holds the gradient of each.
            gradients = torch.autograd.grad(
                (losses * weights).sum(), [params[n] for n in directions], create_graph=further
            )
            dot = square = images.new_zeros(len(images))
            for gradient, direction in zip(gradients, directions.values(), strict=True):
                dot = dot + (gradient * direction).flatten(1).sum(1)
                square = square + gradient.square().flatten(1).sum(1)
        return dot, square


def _shared_model(target: GradientTarget, dtype: torch.dtype) -> _Shared | None:
    """The model, if every parameter belongs to a layer that can be read, and to one alone."""
    model = copy.deepcopy(target.model)
    modules = {name: part for name, part in model.named_modules() if part._parameters}
    owned = [id(value) for part in modules.values() for value in part._parameters.values() if value is not None]
    readers = {name: reader(part) for name, part in modules.items()}
    usable_readers = {name: read for name, read in readers.items() if read is not None}
    if len(usable_readers) < len(readers) or len(owned) != len(set(owned)):
        return None
    model.load_state_dict(dict(target.params), strict=False)
    return _Shared(model.to(dtype).requires_grad_(False), usable_readers)


def _plain_gradient(target: GradientTarget, images: Tensor, labels: Tensor) -> Params:
    """The gradient of the mean cross-entropy of one problem's images, as one would write it."""
    import torch
    from torch.func import functional_call

    model = copy.deepcopy(target.model).to(images.dtype)
    params = {name: value.detach().to(images.dtype).requires_grad_() for name, value in target.params.items()}
    with torch.enable_grad():
        outputs = functional_call(model, params, (images.detach(),))
        loss = -(outputs.log_softmax(-1) * labels).sum(-1).mean()
        gradients = torch.autograd.grad(loss, list(params.values()))
    return dict(zip(params, gradients, strict=True))


def directions_of(gradients: Sequence[Params], dtype: torch.dtype) -> tuple[Params, Tensor]:
    """The gradients, stacked and scaled to length 1, and their lengths; NaN where there is no direction."""
    import torch

    stacked = {name: torch.stack([g[name].detach() for g in gradients]).double() for name in gradients[0]}
    squares = torch.stack([value.square().flatten(1).sum(1) for value in stacked.values()]).sum(0)
    lengths = torch.where(squares > 0, squares.sqrt(), torch.nan)
    scaled = {name: value / lengths.reshape(-1, *[1] * (value.ndim - 1)) for name, value in stacked.items()}
    return {name: value.to(dtype) for name, value in scaled.items()}, lengths.to(dtype)


def pad_problems(problems: Sequence[Problem], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Starts (S, n, *shape), one-hot labels (S, n, C) and weights (S, n), 1 over the number of images, 0 on padding."""
    import torch
    from torch.nn import functional

    target, width = problems[0].target, max(len(problem.labels) for problem in problems)
    images = np.zeros((len(problems), width, *target.input_shape), dtype=np.float32)
    labels = np.zeros((len(problems), width), dtype=np.int64)
    weights = np.zeros((len(problems), width))
    for i, problem in enumerate(problems):
        count = len(problem.labels)
        images[i, :count], labels[i, :count], weights[i, :count] = problem.inputs, problem.labels, 1 / count
    device = next(iter(target.params.values())).device
    starts, shares = (torch.from_numpy(a).to(device, dtype) for a in (images, weights))
    return starts, functional.one_hot(torch.from_numpy(labels), target.num_classes).to(device, dtype), shares


def grid_axes(target: GradientTarget) -> int:
    """Along how many of the last axes of inputs neighbouring values belong together."""
    return len(target.modality.grid(target.input_shape))


def total_variation(images: Tensor, weights: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """(S,) the mean absolute difference between neighbours of the inputs of each problem, by weight. Also its slope in
    closed form, in the shape of the inputs. Neighbours are those along each of the last `axes`, which are those of
    `Modality.grid`: height and width of images, time of series.

    The `weights` (S, n) are 1 over the number of images of the problem, and 0 on padding. A mean over the padded width
    would smooth a small problem less where the largest problem of the stack is larger. Inputs without a grid have none.
    """
    import torch

    values, slope = images.new_zeros(len(images)), torch.zeros_like(images)
    # An image one pixel high or wide has no neighbours in that direction.
    for dim in range(images.ndim - axes, images.ndim):
        long = images.shape[dim]
        if long < 2:
            continue
        steps = images.diff(dim=dim)
        share = weights / math.prod(steps.shape[2:])
        values = values + (steps.abs().flatten(2).sum(2) * share).sum(1)
        signs = steps.sign().mul_(share.reshape(*share.shape, *[1] * (images.ndim - 2)))
        slope.narrow(dim, 1, long - 1).add_(signs)
        slope.narrow(dim, 0, long - 1).sub_(signs)
    return values, slope
