"""Exact recovery of inputs from the gradient of a first layer that is linear and has a bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Gt, Lt

from fedmem.attacks._targets import validate_targets
from fedmem.contracts.attack import GradientTarget, Reconstruction

if TYPE_CHECKING:
    from torch import Tensor

    from fedmem.attacks._entrance import Entrance


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """Divides the gradient of the first layer by that of its bias: inputs in closed form, without optimisation.

    Example k of n moves unit i, `z_i = w_i x + b_i`, by `d_ik = dl_k/dz_i`. So the gradient of the mean loss is
    `dL/dw_i = sum_k d_ik x_k / n` and `dL/db_i = sum_k d_ik / n`. Where one example alone moves the unit (for example,
    the others are on the flat side of its ReLU), `x = (dL/dw_i) / (dL/db_i)` is that example. Otherwise the quotient is
    a mean of examples, weighted by d_ik. What is exact is decided without the truth:

    - one example: always, whatever its number of steps, as long as the rows (dL/dw_i, dL/db_i) are parallel. All of
      them are used, by least squares;
    - several: a quotient counts as an example under two conditions. It lies in [0, 1], and under one of the labels it
      moves its unit by `n dL/db_i` when it is sent through the model. That needs a true gradient: one step, of the
      right scale. What an example adds to all units is then known and subtracted, and an example that alone moves a
      unit of the rest is next.

    Returns the exact images, each once, as many as were found and at most `num_images`. So the number of images shows
    how much is exact. Without any, it returns the mean of the examples weighted by d_ik. Labels are those under which
    an image moves the units as the gradient says. `distance` in 0..1 is the share of the layer's gradient that is no
    combination of the exact images: 0 if they are all, 1 if none is exact, NaN if the gradient is zero or not finite.

    Fields

    - `tolerance`: relative error up to which two numbers are taken for the same. A larger one finds more in updates
      that were rounded. It also mistakes more means of examples for examples: at 1e-3 in 1 to 2 % of the batches tried.

    Guarantees:

    - it knows the model, its parameters, the gradient and the number of examples;
    - nothing is drawn, and the result of a target does not depend on other targets;
    - the sign and the scale of the gradient do not matter for the image of one example. The sign matters for its label,
      and both matter for several examples;
    - equal examples in a batch are not found, since together they move a unit by a multiple.

    Errors: `ComponentError` where the first layer is not linear with a bias, on inputs that are at most shifted and
    scaled before it. `TargetError` if a target does not fit its model.

    >>> import torch
    >>> model, image = torch.nn.Linear(4, 3), torch.tensor([[0.1, 0.9, 0.4, 0.6]])
    >>> params = dict(model.named_parameters())
    >>> loss = torch.nn.functional.cross_entropy(model(image), torch.tensor([2]))
    >>> gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values()))))
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=model, params=params, gradient=gradient, num_images=1, input_shape=(4,), num_classes=3,
    ...     modality=Tables(), knows=""
    ... )
    >>> found, = LinearLayer().reconstruct([target], [np.random.default_rng(0)])
    >>> found.labels.tolist(), found.inputs.round(5).tolist() == image.tolist()
    ([2], True)

    Reference: Phong, Aono, Hayashi, Wang and Moriai (2018), Privacy-Preserving Deep Learning via Additively Homomorphic
    Encryption. For units that one example moves alone: Boenisch et al. (2023), When the Curious Abandon Honesty.
    """

    tolerance: Annotated[float, Gt(0), Lt(0.1)] = 1e-4

    @property
    def knows(self) -> tuple[str, ...]:
        """Nothing more."""
        return ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        return [self._reconstruct_one(target) for target in validate_targets(targets)]

    def _reconstruct_one(self, target: GradientTarget) -> Reconstruction:
        from torch.nn import functional

        from fedmem.attacks._entrance import Entrance

        entrance = Entrance(target)
        rows = entrance.rows(target.gradient)
        bias = rows[:, -1]
        if not rows.isfinite().all() or not bias.any():
            grey = np.full((1, *target.input_shape), 0.5, dtype=np.float32)
            note = "nothing was found: the gradient of the first layer is zero or not finite"
            return Reconstruction(inputs=grey, labels=np.zeros(1, dtype=np.int64), distance=math.nan, note=note)
        mean = entrance.inverse((bias @ rows[:, :-1] / bias.square().sum())[None])
        label = functional.cosine_similarity(entrance.moves(mean)[0], bias, dim=-1).argmax()[None]
        images, labels = (
            (mean, label) if target.num_images == 1 else self._isolated_inputs(entrance, rows, target.num_images)
        )
        distance = _unexplained_share(rows, entrance.forward(images))
        note = ""
        if not len(images) or (target.num_images == 1 and distance > self.tolerance):
            images, labels, distance = mean, label, 1.0
            note = "nothing was found that is exact; the input is a weighted mean of the examples, its label a guess"
        return Reconstruction(
            inputs=images.clamp(0.0, 1.0).reshape(-1, *target.input_shape).float().cpu().numpy(),
            labels=labels.cpu().numpy(),
            distance=distance,
            note=note,
        )

    def _isolated_inputs(self, entrance: Entrance, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The images (k, d) that move a unit alone once those found before are taken away, and their labels (k,)."""
        import torch

        images, labels = rows.new_empty(0, rows.shape[1] - 1), torch.empty(0, dtype=torch.int64, device=rows.device)
        residual = rows
        while len(images) < count:
            new_images, new_labels = self._isolated_in_rows(entrance, residual, count, images)
            new_images, new_labels = new_images[: count - len(images)], new_labels[: count - len(images)]
            if not len(new_images):
                break
            images, labels = torch.cat([images, new_images]), torch.cat([labels, new_labels])
            slopes = entrance.moves(new_images)[torch.arange(len(new_images)), new_labels] / count
            residual = residual - slopes.T @ entrance.forward(new_images)
        return images, labels

    def _isolated_in_rows(
        self, entrance: Entrance, rows: Tensor, count: int, earlier_images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Images (k, d) that move a unit alone in these rows, none of those known, and their labels (k,)."""
        import torch

        # The larger a quotient's denominator, the less rounding there is in it.
        units = rows[:, -1].abs().argsort(descending=True, stable=True)
        units = units[rows[units, -1] != 0]
        images = entrance.inverse(rows[units, :-1] / rows[units, -1:])
        inside = ((images > -self.tolerance) & (images < 1 + self.tolerance)).all(1)
        units, images = units[inside], images[inside]
        slopes = entrance.moves(images)[torch.arange(len(units)), :, units]
        errors, labels = (count * rows[units, -1:] / slopes - 1).abs().nan_to_num(torch.inf).min(1)
        chosen_units: list[int] = []
        for i in (errors < self.tolerance).nonzero()[:, 0].tolist():
            if (
                (torch.cat([earlier_images, images[chosen_units]]) - images[i])
                .abs()
                .amax(1)
                .gt(10 * self.tolerance)
                .all()
            ):
                chosen_units.append(i)
        return images[chosen_units], labels[chosen_units]


def _unexplained_share(rows: Tensor, images: Tensor) -> float:
    """The share of the rows' length that is no combination of these (k, d + 1)."""
    import torch

    basis = torch.linalg.qr(images.T).Q
    return float((rows - rows @ basis @ basis.T).norm() / rows.norm())
