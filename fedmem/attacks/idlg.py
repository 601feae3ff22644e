"""Reconstruction from a gradient whose label is read off first, by a second-order method."""

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
class IDLG:
    """As `dlg`, but the labels are read off the gradient of the last layer's bias before images are looked for: iDLG.

    Minimises `|grad loss(x, y) - g|² / |g|²` over images x by L-BFGS, in float64. For one image the label y is the only
    negative entry of that gradient, exactly. For a batch the labels are inferred from the same entries (see
    `attacks/_labels.py`), and may be wrong.

    Takes targets of one model, of any number of images each. Returns images (num_images, *input_shape) and sorted
    labels (num_images,). The distance is that of the returned images, from 0 on; lower is better.

    Fields

    - `steps`: evaluations of the objective, those of line searches included.
    - `lr`: first length of a step along the quasi-Newton direction.
    - `memory`: pairs of moves and differences of slopes from which the curvature is estimated.
    - `restarts`: independent starts for each target, from uniform noise.

    Guarantees: those of `dlg`.

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
    >>> found, = IDLG().reconstruct([target], [np.random.default_rng(0)])
    >>> found.labels.tolist(), [round(pixel, 3) for pixel in found.inputs[0].tolist()]
    ([2], [0.1, 0.9, 0.4, 0.6])

    Reference: Zhao, Mopuri and Bilen (2020), iDLG: Improved Deep Leakage from Gradients.
    """

    steps: Annotated[int, Gt(0)] = 300
    lr: Annotated[float, Gt(0)] = 1.0
    memory: Annotated[int, Gt(0)] = 20
    restarts: Annotated[int, Gt(0)] = 1

    @property
    def knows(self) -> tuple[str, ...]:
        """Nothing more: labels are inferred."""
        return ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One reconstruction per target, in their order."""
        solve = partial(approach, steps=self.steps, lr=self.lr, memory=self.memory, soft=False)
        return best_restarts(starts(validate_targets(targets), rngs, self.restarts), solve)
