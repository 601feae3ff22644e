"""Unit ablation: how many hidden units have to be zeroed until a model no longer gives the label of an example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._ablation import ablate, input_noise, num_units, reference_rows
from fedmem.signals._observed_rounds import ObservedRounds

_FIRST = 5
"""How many of the zeroed units are stored by their numbers."""


@dataclass(frozen=True, kw_only=True)
class UnitAblation(ObservedRounds):
    """Hidden units are zeroed one by one: those that matter most to one example and least to other rows.

    A unit is a hidden unit or a channel at the end of a hidden block. With J = −ℓ_j + mean ℓ over reference rows, the
    score of a unit is Σ over its activations a of a · ∂J/∂a. After a ReLU without normalisation that is
    Σ w · ∂J/∂w over its incoming weights and bias. The unit with the largest score is zeroed, for this example
    alone, and scores are formed again. It ends after `cap` units, or when no score is positive.

    - `units_to_flip`: the number of zeroed units after which the model is first wrong about the example. 0 where it is
      wrong without any, and cap + 1 where it is still right at the end (censored);
    - `units_censored`: whether it is still right at the end, 0 or 1;
    - `ablation_fall`: the margin without zeroed units, minus the mean margin after 1 to `cap` of them, in nats.

    Examples are read whether or not the model is right, also in runs without the example. The gain of `ablation_fall`
    is the mean fall in runs with the example minus that in runs without it. Stored without rows in tables:
    `ablated_margin.<k>`, the margin after k zeroed units, constant once zeroing has ended, and `ablated_unit.<i>`, the
    number of the i-th zeroed unit, for the first five.

    References are drawn from the population, the same for all models. At a client, only its own examples are read. NaN
    for a model that has diverged.

    Fields

    - `units`: the cap; if left out, a share of all hidden units, at least one.
    - `share`: this share.
    - `reference`: how many rows of the population are used, at most.
    - `noise`: if above 0, scores are means over inputs with normal noise of this standard deviation, the same for all.
    - `noise_draws`: the number of these inputs.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> UnitAblation(units=3).variants
    ('ablated_margin', 'ablated_unit')

    Reference: Maini et al. (2023), Can neural network memorization be localized?
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="units_to_flip",
                title="units to flip",
                means="Number of zeroed hidden units until the answer is wrong; the cap plus 1 if it stays right.",
                is_not="It is not memorisation: few units are also enough where the model is unsure.",
                range=(0.0, math.inf),
                digits=1,
            )
        ),
        *signal_measures(
            Measure(
                name="units_censored",
                title="still right at the cap",
                means="Whether the answer is right after the largest number of zeroed units.",
                is_not="It depends on the cap, which is a field.",
                unit="share",
                range=(0.0, 1.0),
            )
        ),
        *signal_measures(
            Measure(
                name="ablation_fall",
                title="fall of the margin by zeroed units",
                means="The margin of the label minus its mean after 1 to cap zeroed units.",
                is_not="It is large for all examples of a model that depends on few units.",
                unit="nats",
                trained_on="higher",
            )
        ),
    )
    texts: ClassVar[bool] = False
    owners_only: ClassVar[bool] = True
    needs_population: ClassVar[bool] = True
    min_blocks: ClassVar[int] = 1
    variants: ClassVar[tuple[str, ...]] = ("ablated_margin", "ablated_unit")

    units: Annotated[int, Gt(0)] | None = None
    share: Annotated[float, Gt(0), Le(1)] = 0.2
    reference: Annotated[int, Gt(0)] = 20
    noise: Annotated[float, Ge(0), "identity_neutral"] = 0.0
    noise_draws: Annotated[int, Gt(0), "identity_neutral"] = 5

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """A forward and a backward pass of the example and of all references for each unit, for each draw of noise."""
        rows = 1 + min(self.reference, len(federation.population))
        draws = 1 + 3 * self.noise_draws if self.noise else 3
        return float(draws * rows * (self._cap(federation) + 1)), 0.0

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """Margins by the number of zeroed units, and the first of these."""
        cap = self._cap(federation)
        first = range(1, min(_FIRST, cap) + 1)
        return {"ablated_margin": [*map(str, range(cap + 1))], "ablated_unit": [*map(str, first)]}

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        cap = self._cap(context.federation)
        shape = len(context.transitions), len(context.examples)
        margin = np.full((*shape, cap + 1), np.nan)
        right = np.zeros((*shape, cap + 1), dtype=bool)
        unit = np.full((*shape, min(_FIRST, cap)), np.nan)
        reference = reference_rows(context, self.reference)
        noise = input_noise(context, self.noise, self.noise_draws)
        for position in range(len(context.transitions)):
            rows = np.flatnonzero(context.is_owner()[position])
            examples = context.examples.take(rows)
            ablated = ablate(context, context.function(position), examples, reference, cap, noise)
            margin[position, rows], right[position, rows] = ablated[:2]
            unit[position, rows] = ablated[2][:, :_FIRST]
        is_known = ~np.isnan(margin).any(axis=2)
        # the first number of units after which it is wrong
        count = np.where(right.all(axis=2), cap + 1.0, np.argmin(right, axis=2))
        return {
            "units_to_flip": np.where(is_known, count, np.nan),
            "units_censored": np.where(is_known, right.all(axis=2).astype(np.float64), np.nan),
            "ablation_fall": margin[:, :, 0] - margin[:, :, 1:].mean(axis=2),
            "ablated_margin": margin,
            "ablated_unit": unit,
        }

    def _cap(self, federation: Federation) -> int:
        """The largest number of zeroed units; never all of them."""
        total = num_units(federation)
        return max(1, min(total - 1, self.units or int(self.share * total)))
