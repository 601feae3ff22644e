"""Reconstruction of training images from a gradient, by matching its direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from fedmem.attacks._labels import infer_labels, last_bias
from fedmem.components import GradientTarget, Reconstruction
from fedmem.types import IntArray, Params

if TYPE_CHECKING:
    from torch import Tensor

STACK_VALUES = 1 << 22
"""Parameters (and, at a guess, activations) that one stack of problems may hold at once."""


@dataclass(frozen=True, kw_only=True)
class InvertingGradients:
    """Finds images whose gradient points where the target's does: Inverting Gradients.

    Minimises `1 - cos(grad loss(x, y), g) + tv * TV(x)` over images x in [0, 1]. The sign of the gradient in x goes
    into Adam, x is clipped after every step, and the step shrinks tenfold at 3/8, 5/8 and 7/8 of the way. The labels
    y are inferred first, from the gradient of the last layer's bias (see `attacks/_labels.py`).

    Takes targets of one model, of any number of images each; returns images (num_images, *input_shape), sorted labels
    (num_images,) and the distance `1 - cos` in 0..2, lower is better.

    Fields

    - `steps`: optimisation steps.
    - `lr`: first step size; 0.1 is a tenth of the range of a pixel.
    - `tv`: weight of total variation, the mean absolute difference between neighbouring pixels of every channel;
      inputs that are no images, with fewer than two dimensions, have none.
    - `restarts`: independent starts for each target.
    - `labels`: whether labels are `inferred`, or `known` to the adversary.

    Guarantees:

    - it knows the model, its parameters, the gradient and the number of images, labels if it says so, and no image;
    - restarts are chosen by the distance alone, never by the truth;
    - only the direction of `g` counts for the images, so its sign must be right; its scale helps to count repeated
      labels, and a wrong one misplaces some of them;
    - the model is used in the mode that it is in, and is not changed;
    - what a target gets does not depend on the targets beside it, but for rounding, which signs amplify;
    - a target without a direction (zero, or not finite) gets a distance of NaN and images that only `tv` has shaped.

    Errors: `RunError` when the model's last layer has no bias to read labels from.

    >>> import torch
    >>> from torch.nn import functional
    >>> model, image = torch.nn.Linear(4, 3), torch.tensor([[0.1, 0.9, 0.4, 0.6]])
    >>> params = dict(model.named_parameters())
    >>> loss = functional.cross_entropy(model(image), torch.tensor([2]))
    >>> gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values()))))
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient=gradient, num_images=1, input_shape=(4,), num_classes=3, knows=""
    ... )
    >>> found, = InvertingGradients().reconstruct([target], [np.random.default_rng(0)])
    >>> found.labels.tolist(), found.inputs.round(2).tolist()
    ([2], [[0.10000000149011612, 0.8999999761581421, 0.4000000059604645, 0.6000000238418579]])

    Reference: Geiping, Bauermeister, Dröge and Moeller (2020), Inverting Gradients.
    """

    steps: Annotated[int, Gt(0)] = 300
    lr: Annotated[float, Gt(0)] = 0.1
    tv: Annotated[float, Ge(0)] = 1e-3
    restarts: Annotated[int, Gt(0)] = 1
    labels: Literal["inferred", "known"] = "inferred"

    @property
    def knows(self) -> tuple[str, ...]:
        """The labels, where they are given."""
        return ("labels",) if self.labels == "known" else ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        pairs = enumerate(zip(targets, rngs, strict=True))
        problems = [problem for t, (target, rng) in pairs for problem in self._starts(t, target, rng)]
        # Stacks of like sizes waste little on padding.
        problems.sort(key=lambda problem: -len(problem.labels))
        best: dict[int, Reconstruction] = {}
        while problems:
            largest = max(problems[0].inputs.size, sum(value.numel() for value in problems[0].target.params.values()))
            chunk = max(1, STACK_VALUES // largest)
            part, problems = problems[:chunk], problems[chunk:]
            for problem, (images, distance) in zip(part, self._solve(part), strict=True):
                # A restart without a distance loses to any other.
                if (
                    problem.index not in best
                    or distance < best[problem.index].distance
                    or math.isnan(best[problem.index].distance)
                ):
                    best[problem.index] = Reconstruction(inputs=images, labels=problem.labels, distance=distance)
        return [best[t] for t in range(len(targets))]

    def _starts(self, index: int, target: GradientTarget, rng: np.random.Generator) -> list[_Problem]:
        """The restarts of one target, from uniform noise."""
        labels = target.labels
        if labels is None:
            labels = infer_labels(last_bias(target.gradient, target.num_classes), target.num_images)
        starts = rng.random((self.restarts, target.num_images, *target.input_shape), dtype=np.float32)
        return [_Problem(index=index, target=target, inputs=inputs, labels=labels) for inputs in starts]

    def _solve(self, problems: Sequence[_Problem]) -> list[tuple[NDArray[np.float32], float]]:
        """Optimise a stack of problems; gives images and distance of each."""
        import torch

        stacked = _Stack(problems)
        images = stacked.starts
        first, second = torch.zeros_like(images), torch.zeros_like(images)
        for step in range(self.steps):
            images.requires_grad_()
            objective = stacked.distances(images).sum() + self.tv * _total_variation(images, stacked.weights)
            (slope,) = torch.autograd.grad(objective, images)
            with torch.no_grad():
                sign = slope.nan_to_num_(0.0).sign_()
                first.mul_(0.9).add_(sign, alpha=0.1)
                second.mul_(0.999).addcmul_(sign, sign, value=0.001)
                unbiased = math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
                lr = self.lr * 0.1 ** sum(8 * step >= eighths * self.steps for eighths in (3, 5, 7))
                images = (images - lr * unbiased * first / (second.sqrt() + 1e-8)).clamp_(0.0, 1.0)
        distances = stacked.distances(images).tolist()
        found = images.cpu().numpy()
        return [(found[i, : len(p.labels)].copy(), distances[i]) for i, p in enumerate(problems)]


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """One start of one target: what to match, from where, under which labels."""

    index: int
    target: GradientTarget
    inputs: NDArray[np.float32]
    labels: IntArray


class _Stack:
    """Problems along a leading axis S; those with fewer images are padded, and the padding has no weight."""

    def __init__(self, problems: Sequence[_Problem]) -> None:
        import torch

        targets = [problem.target for problem in problems]
        width = max(len(problem.labels) for problem in problems)
        images = np.zeros((len(problems), width, *targets[0].input_shape), dtype=np.float32)
        labels = np.zeros((len(problems), width, 1), dtype=np.int64)
        weights = np.zeros((len(problems), width), dtype=np.float32)
        for i, problem in enumerate(problems):
            count = len(problem.labels)
            images[i, :count], labels[i, :count, 0], weights[i, :count] = problem.inputs, problem.labels, 1 / count
        device = next(iter(targets[0].params.values())).device
        self.starts, self._labels, self.weights = (torch.from_numpy(a).to(device) for a in (images, labels, weights))
        self._model = targets[0].model
        self._params = {
            name: torch.stack([target.params[name].detach() for target in targets]).requires_grad_()
            for name in targets[0].params
        }
        self._wanted = _directions([target.gradient for target in targets])

    def distances(self, images: Tensor) -> Tensor:
        """(S,) one minus the cosine between the gradient of these images and the one that is wanted."""
        import torch
        from torch.func import functional_call

        outputs = torch.vmap(lambda params, x: functional_call(self._model, params, (x,)))(self._params, images)
        losses = -outputs.log_softmax(-1).gather(-1, self._labels).squeeze(-1)
        # Every problem has parameters of its own, so the gradient of the sum holds the gradient of each.
        leaves = [self._params[name] for name in self._wanted]
        gradients = torch.autograd.grad((losses * self.weights).sum(), leaves, create_graph=images.requires_grad)
        dot = square = images.new_zeros(len(images))
        for gradient, direction in zip(gradients, self._wanted.values(), strict=True):
            dot = dot + (gradient * direction).flatten(1).sum(1)
            square = square + gradient.square().flatten(1).sum(1)
        return 1.0 - dot / (square + 1e-24).sqrt()


def _directions(gradients: Sequence[Params]) -> Params:
    """The gradients, stacked and scaled to length 1; NaN where there is no direction."""
    import torch

    stacked = {name: torch.stack([g[name].detach() for g in gradients]).double() for name in gradients[0]}
    squares = torch.stack([value.square().flatten(1).sum(1) for value in stacked.values()]).sum(0)
    lengths = torch.where(squares > 0, squares.sqrt(), torch.nan)
    return {name: (value / lengths.reshape(-1, *[1] * (value.ndim - 1))).float() for name, value in stacked.items()}


def _total_variation(images: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute difference between neighbours in height and in width of each image, by weight, summed over S.

    The `weights` (S, n) are 1 over the number of images of the problem, and 0 on padding: a mean over the padded width
    would smooth a small problem the less, the larger those beside it.
    """
    if images.ndim < 4:
        return images.new_zeros(())
    # An image one pixel high or wide has no neighbours in that direction.
    steps = [images.diff(dim=dim).abs() for dim in (-2, -1) if images.shape[dim] > 1]
    return sum(((step.flatten(2).mean(2) * weights).sum() for step in steps), images.new_zeros(()))
