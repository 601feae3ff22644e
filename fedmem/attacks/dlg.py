"""Reconstruction of images and labels together from a gradient, by a second-order method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from annotated_types import Gt

from fedmem.attacks._newton import approach
from fedmem.attacks._problems import best_restarts, starts
from fedmem.attacks._targets import validate_targets
from fedmem.contracts.attack import GradientTarget, Reconstruction


@dataclass(frozen=True, kw_only=True)
class DLG:
    """Finds images and labels whose gradient is the target's: Deep Leakage from Gradients.

    Minimises `|grad loss(x, softmax(z)) - g|² / |g|²` over images x and label logits z by L-BFGS, in float64. It is
    made for the gradient of a single step, of few images, of a network that is smooth in its inputs (`lenet` with
    sigmoids). With ReLUs it mostly fails. Of an update of several steps it uses only the mean gradient.

    Takes targets of one model, of any number of images each. Returns images (num_images, *input_shape) and sorted
    labels (num_images,). The distance is that of the returned images, from 0 on; lower is better.

    Fields

    - `steps`: evaluations of the objective, those of line searches included.
    - `lr`: first length of a step along the quasi-Newton direction.
    - `memory`: pairs of moves and differences of slopes from which the curvature is estimated.
    - `restarts`: independent starts for each target, images from uniform noise, labels even.

    Guarantees:

    - it knows the model, its parameters, the gradient and the number of images: no label, no image;
    - the scale of `g` counts, so it must be the gradient of the mean loss;
    - images are not held in [0, 1] while they are looked for, and clipped in the end;
    - each target is solved by steps and line searches of its own, and leaves when nothing but rounding is left;
    - restarts are chosen by the distance alone; a target without a direction gets a distance of NaN.

    Errors: `TargetError` if a target does not fit its model, or the model has dropout or batch statistics at work.

    >>> import torch
    >>> from torch.nn import functional
    >>> model, image = torch.nn.Linear(4, 3), torch.tensor([[0.1, 0.9, 0.4, 0.6]])
    >>> params = dict(model.named_parameters())
    >>> loss = functional.cross_entropy(model(image), torch.tensor([2]))
    >>> gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values()))))
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient=gradient, num_images=1, input_shape=(4,), num_classes=3,
    ...     modality=Tables(), knows=""
    ... )
    >>> found, = DLG().reconstruct([target], [np.random.default_rng(0)])
    >>> found.labels.tolist(), [round(pixel, 3) for pixel in found.inputs[0].tolist()]
    ([2], [0.1, 0.9, 0.4, 0.6])

    Reference: Zhu, Liu and Han (2019), Deep Leakage from Gradients.
    """

    steps: Annotated[int, Gt(0)] = 300
    lr: Annotated[float, Gt(0)] = 1.0
    memory: Annotated[int, Gt(0)] = 20
    restarts: Annotated[int, Gt(0)] = 1

    @property
    def knows(self) -> tuple[str, ...]:
        """Nothing more: labels are found with the images."""
        return ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        solve = partial(approach, steps=self.steps, lr=self.lr, memory=self.memory, soft=True)
        return best_restarts(starts(validate_targets(targets), rngs, self.restarts, labels=_no_labels), solve)


def _no_labels(target: GradientTarget) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Labels are not looked up: they are found."""
    return np.zeros(target.num_images, dtype=np.int64)
