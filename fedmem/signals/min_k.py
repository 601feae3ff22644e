"""Min-K% and Min-K%++: the tokens of a text that the model expects least, as they are and as z-scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Le

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.modalities.loss import lowest_of_what_is_asked
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._softmax import labels_among, log_probabilities

SMALLEST_DEVIATION = 1e-6
"""The standard deviation, in nats, that replaces a smaller one."""


@dataclass(frozen=True, kw_only=True)
class MinK(ObservedRounds):
    """The mean over the share `k` of the tokens of a text that score lowest; the tokens that are asked for count.

    - `min_k`: a token scores log p, in nats, up to 0 (Min-K%). With k = 1 it is minus the loss.
    - `min_k_plus_plus`: a token scores (log p − μ) / σ, which is Min-K%++. Here μ and σ are the mean and the standard
      deviation of log p under the model's own distribution of that token. So a token that is improbable since many are
      possible scores no lower than one that is probable since few are.

    Both are higher for texts that look trained on. Of n tokens max(1, ⌊k n⌋) count. A row with a single label has one
    token.

    A distribution without spread has σ = 0: it is uniform, or sure of one token. σ is then 1e-6 nats. The z-score is 0
    for the uniform distribution and for the sure token, and very low for any other token.

    Fields

    - `k`: the share of tokens that count.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> MinK().k
    0.2

    References: Shi et al. (2024), Detecting pretraining data from large language models. Zhang et al. (2024),
    Min-K%++: improved baseline for detecting pre-training data from large language models.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="min_k",
                title="Min-K%",
                means="Mean log p of the tokens that the model expects least.",
                is_not="It is low for texts with rare tokens, whether or not anybody trained on them.",
                unit="nats",
                range=(float("-inf"), 0.0),
                trained_on="higher",
            )
        ),
        *signal_measures(
            Measure(
                name="min_k_plus_plus",
                title="Min-K%++",
                means="Mean z-score of log p, under the model's own distribution, of the tokens that score lowest.",
                is_not="It is not calibrated by models without the text, so that its level also shows difficulty.",
                unit="standard deviations",
                trained_on="higher",
            )
        ),
    )
    passes: ClassVar[float] = 0.0
    texts: ClassVar[bool] = True

    k: Annotated[float, Gt(0), Le(1)] = 0.2

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        logits, targets = context.logits(), context.examples.targets
        log_p = log_probabilities(logits)
        own = np.take_along_axis(log_p, labels_among(logits, targets), axis=-1)[..., 0]
        scores = {"min_k": own, "min_k_plus_plus": z_scores(own, log_p)}
        return {name: lowest_of_what_is_asked(values, targets, self.k) for name, values in scores.items()}


def z_scores(own: FloatArray, log_p: FloatArray) -> FloatArray:
    """(...) the z-score of the log probability of a token, from those of all tokens (..., C); see `MinK`.

    >>> z_scores(np.log([0.5]), np.log([[0.5, 0.25, 0.25]])).round(6).tolist()
    [1.0]
    """
    p = np.exp(log_p)
    finite = np.where(p == 0, 0.0, log_p)
    mean = (p * finite).sum(axis=-1)
    deviation = np.sqrt((p * (finite - mean[..., None]) ** 2).sum(axis=-1))
    return np.asarray((own - mean) / np.maximum(deviation, SMALLEST_DEVIATION))
