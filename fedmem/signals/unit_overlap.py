"""Unit overlap: whether a client's model and the aggregate answer about an example by the same hidden units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.estimation.set_overlap import jaccard_excess
from fedmem.signals._ablation import ablate, num_units, reference_rows
from fedmem.signals._observed_rounds import ObservedRounds


@dataclass(frozen=True, kw_only=True)
class UnitOverlap(ObservedRounds):
    """Overlap of the hidden units that matter to an example at its owning client and at the aggregate of the round.

    At each of the two models, units are zeroed one by one as in `unit_ablation`. A and B are the first `units` of them.
    `unit_overlap` is the Jaccard index |A ∩ B| / |A ∪ B| minus its exact mean under independent uniform draws of as
    many of all hidden units. 0 is chance, and the upper end is 1 minus that mean.

    The two models answer by similar units anyway, memory or not: the one was trained from the aggregate before, and is
    averaged into the other. So models of runs without the example are read as well. The reading is the gain: the
    overlap with the example, minus that without it.

    Both models are of one run and round, so that a unit is at the same place in both. Renumbering the units of a run
    changes nothing. A set has fewer members where no further unit is in favour of the label. An empty set has the value
    0, since it overlaps with nothing, by chance or otherwise. It is not left out, because runs without the example
    have more empty sets. Dead units count among all hidden units and are never chosen. That raises the value with and
    without the example. Of equal scores the first unit is taken at both models. At a client, only its own examples are
    read. NaN at round 0, and where one of the models has diverged.

    Fields

    - `units`: the size of the sets, at most; fewer than all hidden units.
    - `reference`: how many rows of the population are used, at most.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `local` alone, since each value is of an owning client and the aggregate.

    >>> UnitOverlap().units, UnitOverlap().levels
    (5, ('local',))

    Reference: Maini et al. (2023), Can neural network memorization be localized?
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="unit_overlap",
            title="overlap of units with the aggregate",
            means="Jaccard index of the units that matter most to the example, at its owning client and at the "
            "aggregate. Its mean for random units is subtracted.",
            is_not="It is high without memorisation, since the two models are related: read the gain.",
            range=(-1.0, 1.0),
            null=0.0,
        )
    )
    texts: ClassVar[bool] = False
    owners_only: ClassVar[bool] = True
    needs_population: ClassVar[bool] = True
    reads_update: ClassVar[bool] = True
    min_blocks: ClassVar[int] = 1

    units: Annotated[int, Gt(0)] = 5
    reference: Annotated[int, Gt(0)] = 20
    levels: tuple[Literal["local"], ...] = ("local",)

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """At both models, a forward and a backward pass of the example and of all references for each unit."""
        rows = 1 + min(self.reference, len(federation.population))
        return 2 * 3.0 * rows * (self._size(federation) + 1), 0.0

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        overlap = np.full((len(context.transitions), len(context.examples)), np.nan)
        total, size = num_units(context.federation), self._size(context.federation)
        reference = reference_rows(context, self.reference)
        for position, transition in enumerate(context.transitions):
            rows: IntArray = np.flatnonzero(context.is_owner()[position])
            aggregate = next(iter(context.counterparts(position)), None)
            if not transition.round or aggregate is None or not len(rows):
                continue
            examples = context.examples.take(rows)
            first, second = (
                _first_units(context, params, examples, reference, size) for params in (transition.kept, aggregate.kept)
            )
            found = jaccard_excess(first[1], second[1], total)
            overlap[position, rows] = np.where(first[0] & second[0], found, np.nan)
        return {"unit_overlap": overlap}

    def _size(self, federation: Federation) -> int:
        return max(1, min(num_units(federation) - 1, self.units))


def _first_units(
    context: SignalContext, params: Params, examples: Examples, reference: Examples, size: int
) -> tuple[BoolArray, FloatArray]:
    """(n,) whether the model says anything about each example, and (n, size) the units that matter most to it."""
    import torch
    from torch.func import functional_call

    doubled = {name: value.detach().to("cpu", torch.float64) for name, value in params.items()}
    margin, _, units = ablate(context, partial(functional_call, context.network, doubled), examples, reference, size)
    return np.asarray(~np.isnan(margin).any(axis=1)), units
