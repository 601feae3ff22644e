"""Representer value of an example: its own share of the logit of its label, with the last layer solved again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._influence_targets import InfluenceTargets, NumTargets, on_itself_and_targets
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

    With `targets`, the term of each audit example j in the logit of each target i is stored as well, `representer_on`.
    It is α_{j,y} φ_jᵀ φ_i, with y the label of i, and positive where the presence of j raises that logit. Over all
    training rows, these terms sum to the logit.

    Only the last layer counts. What earlier layers have learnt from an example is in φ, and is not attributed to it.

    Targets

    - `labels`: t is the label as a one-hot, and values are 0 or more.
    - `model`: t are the probabilities of the network itself, as in the code of the authors. For a label that the
      network gives with certainty, right or wrong, both targets have nearly the same value. For a label that it rules
      out, as of a wrong label that nobody trained on, the value is near 0 or below.

    Fields

    - `target`: what the last layer is fitted to.
    - `penalty`: λ.
    - `targets`: on how many examples influence is read, half of them audit examples and half test examples.
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
    variants: ClassVar[tuple[str, ...]] = ("representer_on",)

    target: Literal["labels", "model"] = "labels"
    penalty: Annotated[float, Gt(0)] = 0.003
    targets: NumTargets = 0

    @property
    def reads_training(self) -> bool:
        """At the aggregate; a client's own objective is its own also where it has layers of its own."""
        return "global" in self.levels

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """One variant for each target."""
        return dict.fromkeys(self.variants, InfluenceTargets.draw(federation, self.targets).names)

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """A pass of the example, and passes of the last layer for all rows."""
        rows, clients = float(federation.base_sizes.sum()), len(federation.base_sizes)
        models = {"local": clients, "global": 1}
        solving = _ITERATIONS * rows * len(self.levels) / sum(models[level] for level in self.levels) / 2
        return 1.0, solving + self.targets

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        targets = InfluenceTargets.draw(context.federation, self.targets).examples(context.federation)
        values = values_of_owners(context, partial(self._at, context, targets), 1 + len(targets))
        return on_itself_and_targets("representer", values)

    def _at(
        self, context: SignalContext, others: Examples, position: int, objective: Objective, rows: IntArray
    ) -> FloatArray:
        """(n, 1 + Q) the values of some audit examples at one model, on themselves and on the targets."""
        import torch

        from fedmem.training.derivatives import double
        from fedmem.training.solved_head import head_features, solve_head

        store, examples = context.federation.store.take(objective.rows), context.examples.take(rows)
        params = context.params(position)
        features, logits = head_features(context.network, params, double(store.inputs))
        own, own_logits = head_features(context.network, params, double(examples.inputs))
        theirs, _ = head_features(context.network, params, double(others.inputs)) if len(others) else (own[:0], None)
        undefined = np.full((len(rows), 1 + len(others)), np.nan)
        if not bool(features.isfinite().all() and logits.isfinite().all() and own.isfinite().all()):
            return undefined
        weights = torch.from_numpy(objective.weights)
        head = solve_head(features, self._targets(logits, store.targets), weights, self.penalty)
        if head is None:
            return undefined
        error = self._targets(own_logits, examples.targets) - (own @ head.T).softmax(dim=1)
        alpha = torch.from_numpy(objective.of_examples[rows, None]) * error / (2.0 * self.penalty)
        on_itself = alpha.gather(1, torch.from_numpy(examples.targets)[:, None]) * own.square().sum(dim=1, keepdim=True)
        on_others = alpha[:, torch.from_numpy(others.targets)] * (own @ theirs.T)
        return np.asarray(torch.cat([on_itself, on_others], dim=1).numpy())

    def _targets(self, logits: Tensor, labels: IntArray) -> Tensor:
        """(n, C) what the last layer is fitted to."""
        import torch

        if self.target == "model":
            return logits.softmax(dim=1)
        one_hot = torch.zeros_like(logits)
        return one_hot.scatter_(1, torch.from_numpy(labels)[:, None], 1.0)
