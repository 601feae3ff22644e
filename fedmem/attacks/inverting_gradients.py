"""Reconstruction of training images from a gradient by matching its direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from fedmem.attacks._labels import infer_labels, last_bias
from fedmem.components import GradientTarget, Reconstruction
from fedmem.types import IntArray, Params

if TYPE_CHECKING:
    from torch import Tensor, nn

STACK_VALUES = 1 << 22
"""Numbers (parameters, and activations at a guess) that one stack of problems may hold at once."""


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """One start of one target: what to match, from where."""

    target: int
    gradient: Params
    inputs: NDArray[np.float32]
    labels: IntArray


@dataclass(frozen=True, kw_only=True)
class InvertingGradients:
    """Inverting Gradients: find images whose gradient points where the target's does (Geiping et al., 2020).

    Minimises `1 - cos(grad loss(x, y), g) + tv * TV(x)` over images x in [0, 1], feeding the sign of the gradient in
    x to Adam and clipping after every step; the step shrinks by 10 at 3/8, 5/8 and 7/8 of the way. Labels y are
    inferred first, from the gradient of the last layer's bias.

    - Knows the model, the parameters before, the gradient and the number of images; neither labels nor any image.
    - Restarts are chosen by the matching distance alone, never by the truth.
    - Only the direction of `g` counts, so its scale need not be known; its sign must be right.
    - The model is used as it is, in the mode that it is in, and is not changed.
    - All targets, and all restarts, are worked on as one stack; what one returns does not depend on the others,
      rounding apart.
    - A target without a direction (zero, or not finite) returns its start, smoothed, with a distance of NaN.

    Fields:
        steps: optimisation steps.
        lr: first step size, in units of pixel range.
        tv: weight of total variation, the mean absolute difference between neighbouring pixels of every channel;
            0 for inputs that are no images, where it is not defined.
        restarts: independent starts for each target.

    Raises `RunError` when the model's last layer has no bias to read labels from.

    >>> InvertingGradients(steps=100).restarts
    1
    """

    steps: Annotated[int, Gt(0)] = 300
    lr: Annotated[float, Gt(0)] = 0.1
    tv: Annotated[float, Ge(0)] = 1e-3
    restarts: Annotated[int, Gt(0)] = 1

    def reconstruct(self, targets: Sequence[GradientTarget], rng: np.random.Generator) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order: images (num_images, *input_shape), labels, distance."""
        if not targets:
            return []
        problems = [problem for t, target in enumerate(targets) for problem in self._starts(t, target, rng)]
        best: dict[int, Reconstruction] = {}
        # stacks of like sizes waste little on padding
        problems.sort(key=lambda problem: -len(problem.labels))
        size = max(
            sum(value.numel() for value in targets[0].params.values()), problems[0].inputs.size * 8
        )
        chunk = max(1, STACK_VALUES // size)
        for start in range(0, len(problems), chunk):
            part = problems[start : start + chunk]
            params = [targets[problem.target].params for problem in part]
            for problem, (images, distance) in zip(part, self._solve(targets[0].model, params, part), strict=True):
                kept = best.get(problem.target)
                if kept is None or distance < kept.distance:
                    best[problem.target] = Reconstruction(inputs=images, labels=problem.labels, distance=distance)
        return [best[t] for t in range(len(targets))]

    def _starts(self, index: int, target: GradientTarget, rng: np.random.Generator) -> list[_Problem]:
        """The restarts of one target, from uniform noise."""
        assert target.num_images > 0
        labels = infer_labels(last_bias(target.gradient, target.num_classes), target.num_images)
        shape = (self.restarts, target.num_images, *target.input_shape)
        starts = rng.random(shape, dtype=np.float32)
        return [_Problem(target=index, gradient=target.gradient, inputs=x, labels=labels) for x in starts]

    def _solve(
        self, model: nn.Module, params: Sequence[Params], problems: Sequence[_Problem]
    ) -> list[tuple[NDArray[np.float32], float]]:
        """Optimise a stack of problems; images of short batches are padded and masked."""
        import torch

        width = max(len(problem.labels) for problem in problems)
        images, labels, mask = _padded(problems, width)
        stacked = {
            name: torch.stack([p[name].detach() for p in params]).requires_grad_() for name in params[0]
        }
        wanted = _directions([problem.gradient for problem in problems])
        first, second = torch.zeros_like(images), torch.zeros_like(images)
        for step in range(self.steps):
            images.requires_grad_()
            distance = _distances(model, stacked, images, labels, mask, wanted)
            objective = distance.sum() + self.tv * _total_variation(images)
            (slope,) = torch.autograd.grad(objective, images)
            with torch.no_grad():
                sign = slope.nan_to_num_(0.0).sign_()
                first.mul_(0.9).add_(sign, alpha=0.1)
                second.mul_(0.999).addcmul_(sign, sign, value=0.001)
                scale = math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
                lr = self.lr * 0.1 ** sum(8 * step >= eighths * self.steps for eighths in (3, 5, 7))
                images = (images - lr * scale * first / (second.sqrt() + 1e-8)).clamp_(0.0, 1.0)
        final = _distances(model, stacked, images, labels, mask, wanted).tolist()
        found = images.detach().numpy()
        return [(found[i, : len(p.labels)].copy(), final[i]) for i, p in enumerate(problems)]


def _padded(problems: Sequence[_Problem], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (S, width, *shape), labels (S, width) and a mask whose rows are the weights of a mean."""
    import torch

    images = np.zeros((len(problems), width, *problems[0].inputs.shape[1:]), dtype=np.float32)
    labels = np.zeros((len(problems), width), dtype=np.int64)
    mask = np.zeros((len(problems), width), dtype=np.float32)
    for i, problem in enumerate(problems):
        count = len(problem.labels)
        images[i, :count], labels[i, :count], mask[i, :count] = problem.inputs, problem.labels, 1.0 / count
    return torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(mask)


def _directions(gradients: Sequence[Params]) -> Params:
    """The gradients, stacked and scaled to length 1; NaN where there is no direction."""
    import torch

    stacked = {name: torch.stack([g[name].detach() for g in gradients]).double() for name in gradients[0]}
    length = sum((value.square().flatten(1).sum(1) for value in stacked.values()), torch.zeros(len(gradients))).sqrt()
    length = torch.where(length > 0, length, torch.nan)
    return {
        name: (value / length.reshape(-1, *[1] * (value.ndim - 1))).float() for name, value in stacked.items()
    }


def _distances(
    model: nn.Module, params: Params, images: Tensor, labels: Tensor, mask: Tensor, wanted: Params
) -> Tensor:
    """(S,) one minus the cosine between the gradient of each stacked problem and the one that is wanted."""
    import torch
    from torch.func import functional_call

    outputs = torch.vmap(lambda p, x: functional_call(model, p, (x,)))(params, images)
    losses = -outputs.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    # every problem has parameters of its own, so that the gradient of the sum holds the gradient of each
    gradients = torch.autograd.grad((losses * mask).sum(), list(params.values()), create_graph=images.requires_grad)
    dot = torch.zeros(len(images))
    square = torch.zeros(len(images))
    for gradient, direction in zip(gradients, (wanted[name] for name in params), strict=True):
        dot = dot + (gradient * direction).flatten(1).sum(1)
        square = square + gradient.square().flatten(1).sum(1)
    return 1.0 - dot / (square + 1e-24).sqrt()


def _total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference between neighbours in height and width, per image, summed over the stack."""
    if images.ndim < 4:
        return images.new_zeros(())
    height = images.diff(dim=-2).abs().flatten(2)
    width = images.diff(dim=-1).abs().flatten(2)
    return (height.mean(-1) + width.mean(-1)).mean(1).sum()
