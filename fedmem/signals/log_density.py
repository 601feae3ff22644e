"""The log density of an example under a generative model: how probable the model finds the whole text or image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.modalities.loss import UNASKED
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._softmax import labels_among, log_probabilities


@dataclass(frozen=True, kw_only=True)
class LogDensity(ObservedRounds):
    """log p(x) = Σ_t log p(x_t | x_<t) in nats, over the tokens of a text or the pixels of an image that are asked for.

    - `log_density`: log p(x), up to 0. Its difference in − out is the rise of the log density of an example by training
      on it. Van den Burg and Williams (2021) call it the memorisation of a generative model. They estimate it by
      cross-validation, which runs replace here.
    - `bits_per_token`: −log p(x) / (n log 2) for n tokens, from 0; of `pixels` the bits per dimension.

    The log density is exact: networks of texts give each factor. It does not depend on any sample. NaN where nothing is
    asked for, and where the model has diverged.

    Fields

    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> LogDensity().levels
    ('local', 'global')

    Reference: van den Burg and Williams (2021), On memorization in probabilistic deep generative models.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *signal_measures(
            Measure(
                name="log_density",
                title="log density",
                means="log p of the whole text or image under the model.",
                is_not="It is high for simple examples, whether or not anybody trained on them.",
                unit="nats",
                range=(-math.inf, 0.0),
                trained_on="higher",
                digits=2,
            )
        ),
        *signal_measures(
            Measure(
                name="bits_per_token",
                title="bits per token",
                means="Bits that the model needs for each token; of pixels the bits per dimension.",
                is_not="It is low for simple examples, whether or not anybody trained on them.",
                unit="bits",
                range=(0.0, math.inf),
                trained_on="lower",
            )
        ),
    )
    passes: ClassVar[float] = 0.0
    texts: ClassVar[bool] = True
    texts_only: ClassVar[bool] = True

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        logits, targets = context.logits(), context.examples.targets
        own = np.take_along_axis(log_probabilities(logits), labels_among(logits, targets), axis=-1)[..., 0]
        own = own.reshape(*own.shape[:2], -1)
        is_asked = (targets != UNASKED).reshape(len(targets), -1)
        count = is_asked.sum(axis=1)
        total = np.where(count > 0, np.where(is_asked, own, 0.0).sum(axis=-1), np.nan)
        return {"log_density": total, "bits_per_token": np.abs(total) / (np.maximum(count, 1) * math.log(2))}
