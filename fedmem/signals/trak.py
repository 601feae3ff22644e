"""TRAK on itself: how much training on an example raised its own margin, by a regression on gradients of margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._influence_targets import InfluenceTargets, NumTargets, on_itself_and_targets
from fedmem.signals._objective import Objective, values_of_owners
from fedmem.signals._observed_rounds import ObservedRounds

PLAIN = 6000
"""Trained parameters up to which gradients need no projection."""


@dataclass(frozen=True, kw_only=True)
class Trak(ObservedRounds):
    """τ = w (1 − p) φᵀ (Φᵀ W Φ + λI)⁻¹ φ, how much the presence of an example raises its own margin.

    The margin is f = log(p / (1 − p)), p the probability of the label, and φ = ∇f is its gradient at the model. The
    rows of Φ are those gradients for all training rows. W are their weights in the objective, and w is the weight of
    the example. TRAK takes the network for a logistic regression on these gradients. So 1 − p is the slope of the loss
    in the margin.

    - Global: rows of all clients of the run. Secure aggregation would give a server Φᵀ W Φ, a sum over clients;
    - Local: rows of the client itself.

    With `targets`, `trak_on` has the effect on the margins of other examples i, w (1 − p) φ_iᵀ (Φᵀ W Φ + λI)⁻¹ φ. Only
    estimators read it.

    Weights are those of the objective, and with equal weights 1/n it is the published formula. TRAK averages over
    several trainings. Here each model has a value, and the runs of the bank are those trainings. A model without the
    example has the value that it would have if it were added. It is NaN where the model has diverged, and where the
    matrix is singular. With fewer rows than columns it is singular without damping.

    Fields

    - `dimension`: columns of a random projection of the gradients; 0 for the gradients themselves, of 6 000 trained
      parameters at most. Inner products vary by about 1/√`dimension` of the product of both lengths.
    - `damping`: λ divided by the mean of the diagonal of Φᵀ W Φ.
    - `targets`: on how many examples influence is read, half of them audit examples and half test examples.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> Trak().max_parameters, Trak(dimension=256).max_parameters
    (6000, 0)

    Reference: Park, Georgiev, Ilyas, Leclerc and Madry (2023), TRAK: attributing model behavior at scale.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="trak",
            title="TRAK on itself",
            means="First-order rise of an example's margin by its presence, by a regression on gradients.",
            is_not="It is an approximation at one model, and no effect that was observed.",
            digits=4,
            trained_on="lower",
        )
    )
    texts: ClassVar[bool] = False
    owners_only: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("trak_on",)
    for_large_networks: ClassVar[str] = "write dimension: 512"

    dimension: Annotated[int, Ge(0)] = 0
    damping: Annotated[float, Ge(0)] = 1e-2
    targets: NumTargets = 0

    @property
    def max_parameters(self) -> int:
        """Those whose gradients are held for all rows."""
        return 0 if self.dimension else PLAIN

    @property
    def reads_training(self) -> bool:
        """At the aggregate; a client's own objective is its own also where it has layers of its own."""
        return "global" in self.levels

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """One variant for each target."""
        return dict.fromkeys(self.variants, InfluenceTargets.draw(federation, self.targets).names)

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """A gradient of the example, and those of all rows; matrices are faster than passes of single rows."""
        rows, clients = float(federation.base_sizes.sum()), len(federation.base_sizes)
        models = {"local": clients, "global": 1}
        total = sum(models[level] for level in self.levels)
        size = self.dimension or sum(value.numel() for value in federation.initial.values())
        return 3.0, 3.0 * self.targets + rows * (3.0 + min(size, rows) / 100) * len(self.levels) / total

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        targets = InfluenceTargets.draw(context.federation, self.targets).examples(context.federation)
        values = values_of_owners(context, partial(self._at, context, targets), 1 + len(targets))
        return on_itself_and_targets("trak", values)

    def _at(
        self, context: SignalContext, targets: Examples, position: int, objective: Objective, rows: IntArray
    ) -> FloatArray:
        """(n, 1 + Q) the values of some audit examples at one model, on themselves and on the targets."""
        import torch

        from fedmem.training.derivatives import double
        from fedmem.training.gauss_newton import FlatModel
        from fedmem.training.margin_gradients import MarginGradients, random_signs, regression_products

        model = FlatModel(context.network, context.models[position])
        if not bool(model.vector.isfinite().all()):
            return np.full((len(rows), 1 + len(targets)), np.nan)
        signs = None
        if self.dimension:
            signs = random_signs(len(model.vector), self.dimension, context.stream("trak"))
        gradients = MarginGradients(model, signs)
        store, examples = context.federation.store.take(objective.rows), context.examples.take(rows)
        features, _ = gradients.of(double(store.inputs), store.targets)
        own, doubts = gradients.of(double(examples.inputs), examples.targets)
        moved = regression_products(features, torch.from_numpy(objective.weights), own, self.damping)
        others, _ = gradients.of(double(targets.inputs), targets.targets)
        effects = torch.cat([(moved * own).sum(dim=1, keepdim=True), moved @ others.T], dim=1) * doubts[:, None]
        return np.asarray(objective.of_examples[rows, None] * effects.numpy())
