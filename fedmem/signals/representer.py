"""Representer value of an example: its own share of the logit of its label, with the last layer solved again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._objective import Objective, values_of_owners
from fedmem.signals._observed_rounds import ObservedRounds

if TYPE_CHECKING:
    from torch import Tensor

_ITERATIONS = 100
"""Steps until the last layer is solved, about; one costs a small share of a pass."""


@dataclass(frozen=True, kw_only=True)
class Representer(ObservedRounds):
    """α_{j,y} ‖φ_j‖², how much an example j adds to the logit of its own label y by being trained on.

    The last layer is solved again with an L2 penalty, on the features φ that the network has. It is then the minimum
    of Σ_i w_i ℓ_i + λ ‖W‖². There, logits are f(x) = Σ_i α_i φ_iᵀ φ(x) over the training rows, with
    α_i = w_i (t_i − p_i) / (2λ). Here p_i are the probabilities, t_i the target and w_i the weight of the row. The
    value is the term of the example itself, and it is the influence of its *presence*. A bias counts as a feature of 1.

    The rows are those of the client, or at the aggregate those of all clients of the run, weighted as in
    `influence_function`. Models of runs without the example have the value that it would have if it were added, to
    first order. It is NaN where the model has diverged, and where the last layer was not solved.

    Only the last layer counts. What earlier layers have learnt from an example is in φ, and is not attributed to it.

    Targets

    - `labels`: t is the label as a one-hot, and values are 0 or more.
    - `model`: t are the probabilities of the network itself, as in the code of the authors. For a label that the
      network gives with certainty, right or wrong, both targets have nearly the same value. For a label that it rules
      out, as of a wrong label that nobody trained on, the value is near 0 or below.

    Fields

    - `target`: what the last layer is fitted to.
    - `penalty`: λ.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> Representer().target
    'labels'

    Reference: Yeh, Kim, Yen and Ravikumar (2018), Representer point selection for explaining deep neural networks.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="representer",
            title="representer value on itself",
            means="Share of an example in the logit of its own label, after the last layer is solved again.",
            is_not="It leaves out what earlier layers learn from the example.",
            digits=4,
            trained_on="lower",
        )
    )
    texts: ClassVar[bool] = False
    owners_only: ClassVar[bool] = True
    trains_last_layer: ClassVar[bool] = True

    target: Literal["labels", "model"] = "labels"
    penalty: Annotated[float, Gt(0)] = 0.003

    @property
    def reads_training(self) -> bool:
        """At the aggregate; a client's own objective is its own also where it has layers of its own."""
        return "global" in self.levels

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """A pass of the example, and passes of the last layer for all rows."""
        rows, clients = float(federation.base_sizes.sum()), len(federation.base_sizes)
        models = {"local": clients, "global": 1}
        return 1.0, _ITERATIONS * rows * len(self.levels) / sum(models[level] for level in self.levels) / 2

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        return {"representer": values_of_owners(context, partial(self._at, context))}

    def _at(self, context: SignalContext, position: int, objective: Objective, rows: IntArray) -> FloatArray:
        """(n,) the values of some audit examples at one model."""
        import torch

        from fedmem.training.derivatives import double
        from fedmem.training.solved_head import head_features, solve_head

        store, examples = context.federation.store.take(objective.rows), context.examples.take(rows)
        params = context.params(position)
        features, logits = head_features(context.network, params, double(store.inputs))
        own, own_logits = head_features(context.network, params, double(examples.inputs))
        undefined = np.full(len(rows), np.nan)
        if not bool(features.isfinite().all() and logits.isfinite().all() and own.isfinite().all()):
            return undefined
        weights = torch.from_numpy(objective.weights)
        head = solve_head(features, self._targets(logits, store.targets), weights, self.penalty)
        if head is None:
            return undefined
        error = self._targets(own_logits, examples.targets) - (own @ head.T).softmax(dim=1)
        of_label = error.gather(1, torch.from_numpy(examples.targets)[:, None])[:, 0]
        alpha = torch.from_numpy(objective.of_examples[rows]) * of_label / (2.0 * self.penalty)
        return np.asarray((alpha * own.square().sum(dim=1)).numpy())

    def _targets(self, logits: Tensor, labels: IntArray) -> Tensor:
        """(n, C) what the last layer is fitted to."""
        import torch

        if self.target == "model":
            return logits.softmax(dim=1)
        one_hot = torch.zeros_like(logits)
        return one_hot.scatter_(1, torch.from_numpy(labels)[:, None], 1.0)
