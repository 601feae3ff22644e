"""Logit margin: by how much the logit of the label beats the best other logit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._softmax import by_example, labels_among


@dataclass(frozen=True, kw_only=True)
class LogitMargin(ObservedRounds):
    """z_y − max over c ≠ y of z_c, from logits z before the softmax; unbounded, higher is surer of the label.

    It is the quantity that is averaged over training as the area under the margin (AUM). The stored `margin` is
    another: log p_y − log Σ p_c over c ≠ y. For a passage it is the mean over the tokens that are asked.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> LogitMargin().levels
    ('local', 'global')

    Reference: Pleiss, Zhang, Elenberg and Weinberger (2020), Identifying mislabeled data using the area under the
    margin ranking.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="logit_margin",
            title="logit margin",
            means="By how much the logit of the label is larger than the largest other logit.",
            is_not="It is not the margin of probabilities, and its size depends on the scale of the weights.",
            trained_on="higher",
            digits=2,
        )
    )
    passes: ClassVar[float] = 0.0
    texts: ClassVar[bool] = True

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        logits, targets = context.logits(), context.examples.targets
        labels = labels_among(logits, targets)
        own = np.take_along_axis(logits, labels, axis=-1)[..., 0]
        others = logits.copy()
        np.put_along_axis(others, labels, -np.inf, axis=-1)
        return {"logit_margin": by_example(own - others.max(axis=-1), targets)}
