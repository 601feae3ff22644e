"""Random projections of a model, which may show what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Le

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.federation import Federation
from fedmem.contracts.signal import SignalContext
from fedmem.signals._observed_rounds import ObservedRounds

NAME = "weight_feature"
"""The quantity whose variants all of these are."""


@dataclass(frozen=True, kw_only=True)
class WeightFeatures(ObservedRounds):
    """Random projections S θ / √q of the weights that a client sends, or of the aggregate.

    The q rows of S have entries ±1 from one named stream, the same for all runs, rounds and clients. The mean squared
    distance of two models is that of their projections.

    It is stored once a model as `weight_feature.projection.i`, with the first drawn row of the test set, and does not
    depend on that row. Tables have no rows of it. `shadow_federations` reads it. A model that has diverged is NaN.

    Fields

    - `projections`: q, the number of random projections.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> WeightFeatures(projections=16).set_rows
    1

    References: Achlioptas (2003), Database-friendly random projections.
    """

    texts: ClassVar[bool] = True
    set: ClassVar[str] = "test"
    set_rows: ClassVar[int] = 1
    passes: ClassVar[float] = 0.0
    reads_update: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = (NAME,)

    projections: Annotated[int, Gt(0), Le(1024)] = 64

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """See the class."""
        return {NAME: tuple(f"projection.{i}" for i in range(self.projections))}

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """(T, n, q); each model for itself, so that no value depends on the models beside it."""
        import torch

        from fedmem.training.margin_gradients import project, random_signs

        names = [name for name in context.federation.initial if name in context.sent_names]
        size = sum(context.federation.initial[name].numel() for name in names)
        signs = random_signs(self.projections, size, context.stream("weight features"))
        rows = np.full((len(context.transitions), self.projections), np.nan)
        for position, transition in enumerate(context.transitions):
            flat = torch.cat([transition.sent[name].detach().cpu().double().flatten() for name in names])
            if bool(flat.isfinite().all()):
                rows[position] = project(signs, flat).numpy()
        return {NAME: np.repeat(rows[:, None], len(context.examples), axis=1)}
