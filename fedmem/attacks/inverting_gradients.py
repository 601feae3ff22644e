"""Reconstruction of training images from a gradient, by matching its direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

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
class InvertingGradients:
    """Finds images whose gradient points where the target's does: Inverting Gradients.

    Minimises `1 - cos(grad loss(x, y), g) + tv * TV(x)` over images x in [0, 1]. Adam takes the sign of the gradient in
    x, and x is clipped after every step. The step shrinks tenfold at 3/8, 5/8 and 7/8 of the way. The labels y are
    inferred first, from the gradient of the last layer's bias (see `attacks/_labels.py`).

    Takes targets of one model, of any number of images each. Returns images (num_images, *input_shape), sorted labels
    (num_images,) and the distance `1 - cos` in 0..2; lower is better.

    Fields

    - `steps`: optimisation steps.
    - `lr`: first step size; 0.1 is a tenth of the range of a pixel.
    - `tv`: weight of total variation, the mean absolute difference between neighbouring pixels of every channel. Inputs
      that are no images, with fewer than two dimensions, have none.
    - `restarts`: independent starts for each target.
    - `labels`: whether labels are `inferred`, or `known` to the adversary.
    - `patience`: steps without a better objective (by a thousandth) after which the step of a problem shrinks early. A
      problem that stalls after its step has shrunk three times stops. If left out, all `steps` are taken.

    Guarantees:

    - it knows the model, its parameters, the gradient and the number of images, labels if declared, and no image;
    - restarts are chosen by the distance alone, never by the truth;
    - only the direction of `g` counts for the images, so its sign must be right. Its scale helps to count repeated
      labels, and a wrong scale misplaces some of them;
    - the model is used in its current mode, and is not changed;
    - the result of a target does not depend on other targets, except for rounding, which signs amplify. Targets with
      other parameters change no bit of it;
    - several stacks of targets are solved in as many processes as there are cores free, with the same result;
    - a target without a direction (zero, or not finite) gets a distance of NaN and images that only `tv` has shaped.

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
    >>> found, = InvertingGradients().reconstruct([target], [np.random.default_rng(0)])
    >>> found.labels.tolist(), found.inputs.round(2).tolist()
    ([2], [[0.10000000149011612, 0.8999999761581421, 0.4000000059604645, 0.6000000238418579]])

    Reference: Geiping, Bauermeister, Dröge and Moeller (2020), Inverting Gradients.
    """

    precedence: ClassVar[int] = 0

    steps: Annotated[int, Gt(0)] = 300
    lr: Annotated[float, Gt(0)] = 0.1
    tv: Annotated[float, Ge(0)] = 1e-3
    restarts: Annotated[int, Gt(0)] = 1
    labels: Literal["inferred", "known"] = "inferred"
    patience: Annotated[int, Gt(0)] | None = None

    @property
    def knows(self) -> tuple[str, ...]:
        """The labels, where they are given."""
        return ("labels",) if self.labels == "known" else ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        return best_restarts(starts(validate_targets(targets), rngs, self.restarts), self._solve)

    def _solve(self, problems: Sequence[Problem]) -> list[Solution]:
        """Optimise a stack of problems."""
        return descend(
            problems,
            Matching(problems),
            Matching.cosine,
            self._smoothness,
            steps=self.steps,
            lr=self.lr,
            signed=True,
            patience=self.patience,
        )

    def _smoothness(self, matching: Matching, images: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = total_variation(images, matching.weights, matching.axes)
        return self.tv * value, slope.mul_(self.tv)
