"""Probabilities of all classes, stored for estimators and attacks that read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.signal import SignalContext
from fedmem.signals._observed_rounds import ObservedRounds
from fedmem.signals._softmax import log_probabilities


@dataclass(frozen=True, kw_only=True)
class Probabilities(ObservedRounds):
    """p_c, the softmax of the logits for each class c, 0 to 1; all classes of an example sum to 1.

    They are stored as `probability.0`, `probability.1`, ..., and have no rows in tables. `consistency` reads them, and
    attacks that need more than the probability of the label. Each value is 8 bytes before compression, so that many
    classes at many rounds are large: `fedmem check` has the size. A model that has diverged has NaN.

    Fields

    - `others`: read it at the models of clients that do not hold the example as well.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> Probabilities().per_class
    ('probability',)
    """

    passes: ClassVar[float] = 0.0
    texts: ClassVar[bool] = False
    per_class: ClassVar[tuple[str, ...]] = ("probability",)

    others: bool = True

    @property
    def owners_only(self) -> bool:
        """Unless others are read."""
        return not self.others

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        probability = np.exp(log_probabilities(context.logits()))
        if not self.others:
            probability[~context.is_owner()] = np.nan
        return {"probability": probability}
