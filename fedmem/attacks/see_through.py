"""Reconstruction of batches by several starts that are drawn towards their common mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Gt

from fedmem.attacks._descent import descend
from fedmem.attacks._matching import Matching, total_variation
from fedmem.attacks._problems import Problem, Solution, best_restarts, starts
from fedmem.attacks._targets import validate_targets
from fedmem.contracts.attack import GradientTarget, Reconstruction

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SeeThrough:
    """Matches a gradient from several starts at once, which are drawn to their mean: See through Gradients.

    Minimises over images x in [0, 1], for all starts of a target together, by Adam
    `|grad loss(x, y) - g|² / |g|² + tv * TV(x) + l2 * mean(x²) + group * mean((x - m)²)`,
    where m is the mean over the starts. The method follows Yin et al., with two differences. They add the statistics of
    batch normalisation (networks here have none), and align the starts before they take their mean. Here an image is
    drawn to the mean only if no other image of its batch has its label. The starts may hold two images of one label in
    either order.

    Takes targets of one model, of any number of images each. Returns images (num_images, *input_shape), sorted labels
    (num_images,) and the distance `|grad - g|² / |g|²`, from 0 on; lower is better.

    Fields

    - `steps`: optimisation steps.
    - `lr`: first step size; it shrinks tenfold at 3/8, 5/8 and 7/8 of the way.
    - `tv`: weight of total variation, the mean absolute difference between neighbouring pixels of every channel.
    - `l2`: weight of the mean square of the pixels.
    - `group`: weight of the mean square of what separates a start from the mean of all.
    - `restarts`: starts for each target.

    Guarantees:

    - it knows the model, its parameters, the gradient and the number of images: labels are inferred;
    - the scale of `g` counts, so it must be the gradient of the mean loss;
    - the start with the smallest distance is returned, by the distance alone;
    - the result of a target does not depend on other targets, except for rounding;
    - a target without a direction gets a distance of NaN.

    Errors: `TargetError` if a target does not fit its model, or the model has active dropout or batch statistics.
    `RunError` when the model's last layer has no bias to read labels from.

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
    >>> found, = SeeThrough(l2=0.0).reconstruct([target], [np.random.default_rng(0)])
    >>> found.labels.tolist(), [round(pixel, 2) for pixel in found.inputs[0].tolist()]
    ([2], [0.1, 0.9, 0.4, 0.6])

    Reference: Yin, Mallya, Vahdat, Alvarez, Kautz and Molchanov (2021), See through Gradients.
    """

    steps: Annotated[int, Gt(0)] = 300
    lr: Annotated[float, Gt(0)] = 0.1
    tv: Annotated[float, Ge(0)] = 1e-5
    l2: Annotated[float, Ge(0)] = 1e-7
    group: Annotated[float, Ge(0)] = 1e-4
    restarts: Annotated[int, Gt(0)] = 3

    @property
    def knows(self) -> tuple[str, ...]:
        """Nothing more: labels are inferred."""
        return ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        return best_restarts(starts(validate_targets(targets), rngs, self.restarts), self._solve, together=True)

    def _solve(self, problems: Sequence[Problem]) -> list[Solution]:
        """Optimise the starts of some targets; those of one are side by side."""
        import torch

        groups = [list(group) for _, group in groupby(range(len(problems)), key=lambda i: problems[i].index)]

        def prior(matching: Matching, images: Tensor) -> tuple[Tensor, Tensor]:
            return self._prior(groups, matching, images)

        # a small difference of two long gradients: in float32 it is noise long before the images are found
        whole = Matching(problems, torch.float64)
        return descend(problems, whole, Matching.euclid, prior, steps=self.steps, lr=self.lr, signed=False)

    def _prior(self, groups: Sequence[Sequence[int]], matching: Matching, images: Tensor) -> tuple[Tensor, Tensor]:
        """Total variation, squares and distances to the mean of the starts, with their slopes."""
        import torch

        smooth, slope = total_variation(images, matching.weights, matching.axes)
        shares = (matching.weights / images[0, 0].numel()).reshape(*images.shape[:2], *[1] * (images.ndim - 2))
        deviations = torch.zeros_like(images)
        for rows in groups:
            labels = matching.labels[rows[0], : matching.counts[rows[0]]].argmax(-1)
            alone = torch.nonzero((labels[:, None] == labels).sum(1) == 1).flatten()
            alone_images = images[rows[0] : rows[-1] + 1, alone]
            deviations[rows[0] : rows[-1] + 1, alone] = alone_images - alone_images.mean(0)
        extra = shares * (self.l2 * images.square() + self.group * deviations.square())
        slope = self.tv * slope + 2 * shares * (self.l2 * images + self.group * deviations)
        return self.tv * smooth + extra.flatten(1).sum(1), slope
