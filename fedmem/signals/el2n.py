"""EL2N: the length of the error of the predicted probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._softmax import by_example, labels_among, log_probabilities


@dataclass(frozen=True, kw_only=True)
class El2n(ObservedRounds):
    """‖p − e_y‖₂, the distance of the predicted probabilities p from the label as a one-hot e_y, 0 to √2.

    It is also the length of the gradient of the loss in the logits. Published scores are means over models at an early
    round; here the runs of a bank are these models. For a passage it is the mean over the tokens that are asked.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> El2n.measures[0].range[0]
    0.0

    Reference: Paul, Ganguli and Dziugaite (2021), Deep learning on a data diet.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="el2n",
            title="EL2N",
            means="Distance of the predicted probabilities from the label as a one-hot.",
            is_not="It is the error of one model, and high for what is hard, trained on or not.",
            range=(0.0, math.sqrt(2.0)),
            trained_on="lower",
        )
    )
    passes: ClassVar[float] = 0.0
    texts: ClassVar[bool] = True

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        logits, targets = context.logits(), context.examples.targets
        log_p = log_probabilities(logits)
        labels = labels_among(logits, targets)
        p = np.exp(log_p)
        # 1 − p of the label without cancellation: the sum of all other probabilities
        np.put_along_axis(p, labels, 0.0, axis=-1)
        length = np.sqrt(np.square(p).sum(axis=-1) + np.square(p.sum(axis=-1)))
        length = np.where(np.isnan(logits).any(axis=-1), np.nan, length)
        return {"el2n": by_example(np.minimum(length, math.sqrt(2.0)), targets)}
