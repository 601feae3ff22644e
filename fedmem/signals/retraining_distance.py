"""Retraining distance: how far predictions move when a trained model is trained further on other rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._softmax import by_example, log_probabilities


@dataclass(frozen=True, kw_only=True)
class RetrainingDistance(ObservedRounds):
    """KL(p‖q) = Σ p_c log (p_c / q_c) in nats, from 0: p are the probabilities before further training, q those after.

    This is the metric `ret` of Carlini, Erlingsson and Papernot (2019), at the aggregate. Write it into a phase
    that does not train on the example. Without an unlearner, round 0 is the model with which the phase before
    ended. The idea is that predictions of regular examples stay and those of memorised ones move. The paper trains
    further on rows that are new to the model. To do so, train clients that did not take part before, with the
    sampler `listed`.

    For a passage, the distance is the mean over its predicted tokens. It is NaN where one of the two models has
    diverged, and infinite where a class has lost all of its probability in float64.

    Fields

    - `since`: the round of the model before; it must be observed.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `global`; no single client is trained further on all rows.

    >>> RetrainingDistance().earlier_rounds
    (0,)

    Reference: Carlini, Erlingsson and Papernot (2019), Distribution Density, Tails, and Outliers in Machine Learning.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="retraining_distance",
            title="retraining distance (ret)",
            means="KL(p‖q), with p the probabilities before further training and q those after it.",
            is_not="It says nothing of memories where the phase trains on the example.",
            unit="nats",
            range=(0.0, float("inf")),
        )
    )
    passes: ClassVar[float] = 1.0
    texts: ClassVar[bool] = True
    reads_update: ClassVar[bool] = True

    since: Annotated[int, Ge(0)] = 0
    levels: tuple[Literal["global"], ...] = ("global",)

    @property
    def earlier_rounds(self) -> tuple[int, ...]:
        """The round of the model before."""
        return (self.since,)

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        now, targets = context.logits(), context.examples.targets
        before = np.full(now.shape, np.nan)
        known = [
            (place, model) for place in range(len(now)) if (model := context.earlier(place, self.since)) is not None
        ]
        if known:
            models = [model for _, model in known]
            before[[place for place, _ in known]] = context.logits_of(context.examples.inputs, models)
        distance = kullback_leibler(log_probabilities(before), log_probabilities(now))
        return {"retraining_distance": by_example(distance, targets)}


def kullback_leibler(log_p: FloatArray, log_q: FloatArray) -> FloatArray:
    """KL(p‖q) over the last axis, in nats; NaN where either has one.

    >>> kullback_leibler(np.log([0.5, 0.5]), np.log([0.25, 0.75])).round(4).item()
    0.1438
    """
    with np.errstate(invalid="ignore"):
        terms = np.exp(log_p) * (log_p - log_q)
    is_unknown = np.isnan(log_p) | np.isnan(log_q)
    terms = np.where(~is_unknown & np.isneginf(log_p), 0.0, terms)
    return np.asarray(np.maximum(terms.sum(axis=-1), 0.0))
