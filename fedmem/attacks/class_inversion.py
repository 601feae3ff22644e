"""Model inversion: what a model takes for a typical member of each class, from its parameters alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.attack import GradientTarget, Reconstruction


@dataclass(frozen=True, kw_only=True)
class ClassInversion:
    """Climbs to inputs that the model is sure of: one representative for each class, and no gradient of any client.

    Minimises `-log p(c | x) + tv * TV(x)` over x in [0, 1] by Adam, for every class c, from grey with a little noise.
    The model is the one after the update where an update is known, the aggregate at level `global`, else the one given.

    The result is the class as the model represents it, a mean of its training examples. It resembles an example only
    where a class is nearly one example, and is a member's image only by chance. It measures what a released model
    shows.

    Returns C inputs (C, *input_shape), whatever the number of examples, and labels 0 .. C-1. `distance` is the mean of
    1 - p(c | x), in 0..1: lower means that the model is surer, not that an example was found.

    Fields

    - `steps`: optimisation steps.
    - `lr`: step size; 0.05 is a twentieth of the range of a pixel.
    - `tv`: weight of total variation, the mean absolute difference between neighbouring pixels.
    - `noise`: standard deviation of the noise at the start.

    Guarantees:

    - it reads parameters only, never the gradient;
    - the result of a target depends on its generator, and on no other target;
    - the model is used in its current mode, and is not changed.

    >>> import torch
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> params = {"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient={}, num_images=1, input_shape=(2,), num_classes=2,
    ...     modality=Tables(), knows=""
    ... )
    >>> ClassInversion().reconstruct([target], [np.random.default_rng(0)])[0].inputs.tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Reference: in the manner of Fredrikson, Jha and Ristenpart (2015), Model Inversion Attacks that Exploit Confidence
    Information and Basic Countermeasures, without their autoencoder.
    """

    steps: Annotated[int, Gt(0)] = 200
    lr: Annotated[float, Gt(0)] = 0.05
    tv: Annotated[float, Ge(0)] = 0.1
    noise: Annotated[float, Ge(0)] = 0.01

    @property
    def knows(self) -> tuple[str, ...]:
        """Nothing more."""
        return ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One set of representatives per target, in their order."""
        return [self._invert(target, rng) for target, rng in zip(targets, rngs, strict=True)]

    def _invert(self, target: GradientTarget, rng: np.random.Generator) -> Reconstruction:
        import torch
        from torch.func import functional_call

        from fedmem.attacks._matching import grid_axes, total_variation

        update = target.update or {}
        params = {n: (p.double() + update[n] if n in update else p.double()).float() for n, p in target.params.items()}
        classes = target.num_classes
        noise = self.noise * rng.standard_normal((classes, *target.input_shape))
        images = torch.from_numpy(np.clip(0.5 + noise, 0.0, 1.0).astype(np.float32)).to(next(iter(params.values())))
        weights = images.new_ones(1, classes)
        first, second = torch.zeros_like(images), torch.zeros_like(images)

        def log_confidence(inputs: torch.Tensor) -> torch.Tensor:
            confidences: torch.Tensor = functional_call(target.model, params, (inputs,)).log_softmax(-1).diagonal()
            return confidences

        for step in range(1, self.steps + 1):
            images.requires_grad_()
            (slope,) = torch.autograd.grad(-log_confidence(images).sum(), images)
            with torch.no_grad():
                smooth = total_variation(images[None], weights, grid_axes(target))[1][0]
                slope = slope.add_(smooth, alpha=self.tv).nan_to_num_(0.0)
                first.mul_(0.9).add_(slope, alpha=0.1)
                second.mul_(0.999).addcmul_(slope, slope, value=0.001)
                moves = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-12)
                images = (images - self.lr * moves).clamp_(0.0, 1.0)
        with torch.no_grad():
            distance = float(1.0 - log_confidence(images).exp().mean())
        return Reconstruction(inputs=images.cpu().numpy(), labels=np.arange(classes), distance=distance)
