"""Grey images: the control that reads no gradient, with which every other attack has to be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.attacks._labels import guess_labels
from fedmem.contracts.attack import GradientTarget, Reconstruction


@dataclass(frozen=True, kw_only=True)
class Grey:
    """Answers with inputs of 0.5 everywhere, the best guess if all that is known is the range [0, 1].

    Returns `num_images` equal inputs, labels as equally divided among the classes as can be, and a `distance` of NaN,
    since nothing was matched. A result of an attack that grey reaches too was not in the update.

    >>> from torch import nn
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=nn.Identity(), params={}, gradient={}, num_images=2, input_shape=(3,), num_classes=2,
    ...     modality=Tables(), knows=""
    ... )
    >>> found, = Grey().reconstruct([target], [np.random.default_rng(0)])
    >>> found.inputs.tolist(), found.labels.tolist()
    ([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], [0, 1])
    """

    @property
    def knows(self) -> tuple[str, ...]:
        """Nothing more."""
        return ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One answer per target, in their order."""
        return [
            Reconstruction(
                inputs=np.full((target.num_images, *target.input_shape), 0.5, dtype=np.float32),
                labels=guess_labels(target.num_images, target.num_classes),
                distance=math.nan,
                note="this control reads nothing of the update, and uses nothing of what was granted",
            )
            for target in targets
        ]
