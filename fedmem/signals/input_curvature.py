"""Curvature of the loss in the input, in the published difference form and exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class InputCurvature(ObservedRounds):
    """E‖Hv‖² over random signs v, which is Tr(H²), H being the Hessian of the loss in the input; from 0.

    - `curvature`: the published form, ‖∇ℓ(x + hv) − ∇ℓ(x)‖² / h², averaged over the directions. It also sees the kinks
      of ReLU within a distance of h√d;
    - `curvature_exact`: the same with exact products Hv, which see no kinks.

    Directions are the same for all examples, models and rounds, drawn from the seed. By default the models of other
    clients are not read, since every reading costs many passes.

    Early in training it does not tell wrong labels from right ones. In a network that interpolates it orders examples
    as the loss does.

    Fields

    - `directions`: how many random directions.
    - `h`: length of a step in each value of the input, for the difference form.
    - `others`: read it at the models of clients that do not hold the example as well.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> InputCurvature(directions=4).passes
    27.0

    Reference: Garg, Ravikumar and Roy (2024), Memorization through the lens of curvature of loss function around
    samples. Ravikumar, Soufleri, Hashemi and Roy (2024), Unveiling privacy, memorization, and input curvature links.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="curvature",
                title="input curvature",
                means="Squared change of the loss's slope in the input along random directions, per squared step.",
                is_not="It is no bound on memorisation unless read at models that did not train on the example.",
                range=(0.0, float("inf")),
                trained_on="lower",
            )
        ),
        *signal_measures(
            Measure(
                name="curvature_exact",
                title="input curvature, exact",
                means="Trace of the squared Hessian of the loss in the input, from exact products.",
                is_not="It does not see the kinks of ReLU, which the published form does.",
                range=(0.0, float("inf")),
                trained_on="lower",
            )
        ),
    )
    texts: ClassVar[bool] = False

    directions: Annotated[int, Gt(0)] = 10
    h: Annotated[float, Gt(0)] = 1e-3
    others: bool = False

    @property
    def owners_only(self) -> bool:
        """Unless others are asked for."""
        return not self.others

    @property
    def passes(self) -> float:
        """A slope at the example, and for each direction one slope and one product."""
        return 3.0 + 6.0 * self.directions

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        import torch

        from fedmem.training.derivatives import double, input_hessian_product, input_slopes

        shape = len(context.transitions), len(context.examples)
        found = {name: np.full(shape, np.nan) for name in ("curvature", "curvature_exact")}
        signs = random_signs(context, self.directions)
        asked = np.ones(shape, dtype=bool) if self.others else context.is_owner()
        for t in range(shape[0]):
            rows = np.flatnonzero(asked[t])
            if not len(rows):
                continue
            inputs, targets = context.examples.inputs[rows], context.examples.targets[rows]
            function, x = context.function(t), double(inputs)
            here = input_slopes(function, inputs, targets)
            differences, products = torch.zeros(len(rows)).double(), torch.zeros(len(rows)).double()
            for v in signs:
                differences += _squares((input_slopes(function, x + self.h * v, targets) - here) / self.h)
                products += _squares(input_hessian_product(function, inputs, targets, v))
            found["curvature"][t, rows] = (differences / len(signs)).numpy()
            found["curvature_exact"][t, rows] = (products / len(signs)).numpy()
        return found


def random_signs(context: SignalContext, count: int) -> list[Tensor]:
    """Directions of the shape of an input, each value −1 or 1."""
    import torch

    rng = context.stream("input curvature")
    shape = context.examples.inputs.shape[1:]
    return [torch.from_numpy(rng.choice([-1.0, 1.0], size=math.prod(shape)).reshape(shape)) for _ in range(count)]


def _squares(values: Tensor) -> Tensor:
    return values.flatten(1).square().sum(dim=1)
