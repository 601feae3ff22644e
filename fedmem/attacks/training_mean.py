"""The mean of the adversary's own examples: the control that knows what the data look like, but no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.attacks._labels import guess_labels
from fedmem.attacks._population import population_of
from fedmem.contracts.attack import GradientTarget, Reconstruction


@dataclass(frozen=True, kw_only=True)
class TrainingMean:
    """Answers with the mean of the population, the one input whose squared error is least on average.

    The mean is that of `GradientTarget.population`, the adversary's own examples. They are drawn like those of the
    clients, and no client trains on them. The clients' data are never used, since their mean would leak.

    Returns `num_images` equal inputs, labels as equally divided among the classes as can be, and a `distance` of NaN,
    since nothing was matched. A note says so.

    Errors: `ComponentError` without a population.

    >>> from torch import nn
    >>> from fedmem.contracts.data import Examples
    >>> rows = Examples(inputs=np.array([[0, 1], [1, 1]], np.float32), targets=np.array([0, 1]), ids=np.arange(2))
    >>> from fedmem.modalities.tables import Tables
    >>> target = GradientTarget(
    ...     model=nn.Identity(), params={}, gradient={}, num_images=1, input_shape=(2,), num_classes=2,
    ...     modality=Tables(), knows="",
    ...     population=rows,
    ... )
    >>> TrainingMean().reconstruct([target], [np.random.default_rng(0)])[0].inputs.tolist()
    [[0.5, 1.0]]
    """

    @property
    def knows(self) -> tuple[str, ...]:
        """A population."""
        return ("population",)

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        """One answer per target, in their order."""
        return [self._reconstruct_one(target) for target in targets]

    def _reconstruct_one(self, target: GradientTarget) -> Reconstruction:
        mean = population_of(target, "training_mean").inputs.mean(axis=0, dtype=np.float64).astype(np.float32)
        return Reconstruction(
            inputs=np.repeat(mean[None], target.num_images, axis=0),
            labels=guess_labels(target.num_images, target.num_classes),
            distance=math.nan,
            note="this control reads nothing of the update; each input is the mean of reference data",
        )
