"""Model inversion: what a model takes for a typical member of each class, from its parameters alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from fedmem.attacks._population import population_of
from fedmem.contracts.attack import GradientTarget, Reconstruction

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ClassInversion:
    """Climbs to inputs that the model is sure of: one representative for each class, and no gradient of any client.

    Minimises `-log p(c | x) + tv * TV(x)` over x in [0, 1] by Adam, for every class c, from grey with a little noise.
    The model is the one after the update where an update is known, the aggregate at level `global`, else the one given.

    The result is the class as the model represents it, a mean of its training examples. It resembles an example only
    where a class is nearly one example, and is a member's image only by chance. It measures what a released model
    shows.

    With `start: population` each class starts from an image of the adversary's own, of that class if it has one. With
    `components: k` every step ends at the nearest image in the span of the first k principal components of these
    images, around their mean. This is a small version of the autoencoder of Fredrikson et al. Both make the result look
    more like an image. They do not make it a member's image: compare `identified` over runs in with runs out.

    Returns C inputs (C, *input_shape), whatever the number of examples, and labels 0 .. C-1. `distance` is the mean of
    1 - p(c | x), in 0..1: lower means that the model is surer, not that an example was found.

    Fields

    - `steps`: optimisation steps.
    - `lr`: step size; 0.05 is a twentieth of the range of a pixel.
    - `tv`: weight of total variation, the mean absolute difference between neighbouring pixels.
    - `noise`: standard deviation of the noise at the start.
    - `start`: from `grey`, or from an image of the `population`.
    - `components`: principal components of the population that an image is made of, such as 50; 0 for any image.

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
    start: Annotated[Literal["grey", "population"], "identity_neutral"] = "grey"
    components: Annotated[int, Ge(0), "identity_neutral"] = 0

    @property
    def knows(self) -> tuple[str, ...]:
        """Nothing more, or the adversary's own images where it starts from them or is drawn to them."""
        return ("population",) if self.start == "population" or self.components else ()

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
        start = np.clip(self._starts(target, rng) + noise, 0.0, 1.0).astype(np.float32)
        images = torch.from_numpy(start).to(next(iter(params.values())))
        span = self._span(target, images)
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
                images = images - self.lr * moves
                if span is not None:
                    middle, directions = span
                    beside = images.flatten(1) - middle
                    images = (middle + beside @ directions.T @ directions).reshape(images.shape)
                images = images.clamp_(0.0, 1.0)
        with torch.no_grad():
            distance = float(1.0 - log_confidence(images).exp().mean())
        return Reconstruction(inputs=images.cpu().numpy(), labels=np.arange(classes), distance=distance)

    def _starts(self, target: GradientTarget, rng: np.random.Generator) -> NDArray[np.float32]:
        """(C, *input_shape) grey, or an image of the population for each class, of any class where it has none."""
        if self.start == "grey":
            return np.full((target.num_classes, *target.input_shape), 0.5, dtype=np.float32)
        rows = population_of(target, "class_inversion with `start: population`")
        of_class = (np.flatnonzero(rows.targets == label) for label in range(target.num_classes))
        chosen = [int(rng.choice(own if len(own) else np.arange(len(rows)))) for own in of_class]
        return np.asarray(rows.inputs[chosen], dtype=np.float32)

    def _span(self, target: GradientTarget, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """The mean (d,) and the first principal components (k, d) of the population; None where any image will do."""
        if not self.components:
            return None
        import torch

        rows = population_of(target, "class_inversion with `components`").inputs
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        middle = flat.mean(axis=0)
        _, sizes, directions = np.linalg.svd(flat - middle, full_matrices=False)
        kept = directions[: self.components][sizes[: self.components] > 1e-9 * max(float(sizes.max(initial=0)), 1e-300)]
        return torch.from_numpy(middle).to(like), torch.from_numpy(kept).to(like)
