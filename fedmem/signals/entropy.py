"""Entropy of the predicted probabilities, and the modified entropy that also asks whether they are right."""

from __future__ import annotations

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
class Entropy(ObservedRounds):
    """How unsure the prediction is, in nats, without and with the label y.

    - `entropy`: −Σ p_c log p_c, 0 to log C. A sure wrong answer has entropy 0.
    - `modified_entropy`: −(1 − p_y) log p_y − Σ over c ≠ y of p_c log(1 − p_c), from 0. It is 0 for a sure right answer
      and unbounded for a sure wrong one.

    For a passage both are means over the tokens that are asked.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> Entropy().every is None
    True

    Reference: Song and Mittal (2021), Systematic evaluation of privacy risks of machine learning models.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="entropy",
                title="entropy",
                means="Entropy of the predicted probabilities.",
                is_not="It does not ask whether the prediction is right.",
                unit="nats",
                range=(0.0, float("inf")),
                trained_on="lower",
            )
        ),
        *signal_measures(
            Measure(
                name="modified_entropy",
                title="modified entropy",
                means="Entropy that is 0 only for a confident and correct prediction.",
                is_not="It is unbounded, so that a few sure and wrong predictions decide a mean.",
                unit="nats",
                range=(0.0, float("inf")),
                trained_on="lower",
            )
        ),
    )
    passes: ClassVar[float] = 0.0
    texts: ClassVar[bool] = True

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        logits, targets = context.logits(), context.examples.targets
        log_p = log_probabilities(logits)
        p, log_rest = np.exp(log_p), log_complements(log_p)
        labels = labels_among(logits, targets)
        of_label = np.take_along_axis(log_p, labels, axis=-1)[..., 0]
        rest_of_label = np.take_along_axis(log_rest, labels, axis=-1)[..., 0]
        with np.errstate(invalid="ignore"):
            wrong = _product(p, log_rest)
            np.put_along_axis(wrong, labels, 0.0, axis=-1)
            modified = -_product(np.exp(rest_of_label), of_label) - wrong.sum(axis=-1)
            plain = -_product(p, log_p).sum(axis=-1)
        is_unknown = np.isnan(logits).any(axis=-1)
        return {
            name: by_example(np.where(is_unknown, np.nan, np.maximum(values, 0.0)), targets)
            for name, values in (("entropy", plain), ("modified_entropy", modified))
        }


def log_complements(log_p: FloatArray) -> FloatArray:
    """(..., C) log(1 − p_c) from log p, as the log of the sum of all others where p_c is near 1.

    >>> log_complements(np.log(np.array([0.75, 0.25]))).round(4).tolist()
    [-1.3863, -0.2877]
    """
    from scipy.special import logsumexp

    largest = log_p.argmax(axis=-1, keepdims=True)
    others = log_p.copy()
    np.put_along_axis(others, largest, -np.inf, axis=-1)
    with np.errstate(divide="ignore"):
        rest = np.log1p(-np.exp(np.minimum(log_p, 0.0)))
    np.put_along_axis(rest, largest, logsumexp(others, axis=-1, keepdims=True), axis=-1)
    return np.asarray(rest)


def _product(weights: FloatArray, logs: FloatArray) -> FloatArray:
    """weights × logs, 0 where the weight is 0."""
    return np.asarray(np.where(weights == 0.0, 0.0, weights * logs))
