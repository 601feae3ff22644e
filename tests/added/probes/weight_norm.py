"""How long the parameters of models are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Level, Measurement, Reading
from fedmem.contracts.probe import Context


@dataclass(frozen=True, kw_only=True)
class WeightNorm:
    """The L2 norm of all parameters together, of each model.

    Fields

    - `every`: measure only rounds that this divides; if left out, all observed ones.
    - `levels`: where to measure.

    >>> WeightNorm().levels
    ('global',)
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(name="weight_norm", title="norm of the weights", means="L2 norm of all parameters together."),
    )

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("global",)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """One reading of each model."""
        norms = [sum(float((value.double() ** 2).sum()) for value in one.kept.values()) ** 0.5 for one in transitions]
        return [
            (one, Reading(metric="weight_norm", value=norm, n=1)) for one, norm in zip(transitions, norms, strict=True)
        ]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Nothing over runs."""
        return ()
