"""The largest value of every measure that a guarantee of epsilon and delta bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """(epsilon, delta)-differential privacy of one unit: P(A) <= e^epsilon Q(A) + delta for any A, and vice versa.

    P and Q are the distributions of the output with the unit and without it, for the adjacency of the guarantee. The
    bounds hold for any adversary and any training; real attacks stay below, usually by far.

    - every bound grows with epsilon and delta, and is what guessing gives at (0, 0);
    - no bound depends on the data or on the model.

    Fields:
        epsilon: at least 0, may be infinite.
        delta: from 0 to 1.

    >>> round(Guarantee(epsilon=1.0, delta=0.0).advantage, 3)
    0.462
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon >= 0 or not 0 <= self.delta <= 1:
            raise ComponentError(
                "privacy",
                f"epsilon {self.epsilon} with delta {self.delta} is no guarantee; "
                "epsilon must be at least 0, and delta from 0 to 1",
            )

    def of_group(self, size: int) -> Guarantee:
        """The guarantee for `size` units together, for example for a record with `size` copies.

        (size epsilon, delta (e^(size epsilon) - 1) / (e^epsilon - 1)), a delta of at most 1 (Dwork and Roth, 2014).

        >>> Guarantee(epsilon=0.0, delta=0.01).of_group(3).delta
        0.03
        """
        assert size >= 1
        if size == 1:
            return self
        terms = np.exp(np.minimum(min(self.epsilon, 700.0) * np.arange(size), 700.0))
        return Guarantee(epsilon=size * self.epsilon, delta=min(1.0, float(self.delta * terms.sum())))

    @property
    def advantage(self) -> float:
        """Largest true less false positive rate of any membership attack (Kairouz, Oh and Viswanath, 2015).

        (e^epsilon - 1 + 2 delta) / (e^epsilon + 1). It is the total variation between P and Q.
        """
        shrunk = math.exp(-self.epsilon)
        return (1 - shrunk + 2 * self.delta * shrunk) / (1 + shrunk)

    @property
    def memorisation(self) -> float:
        """Largest self-influence: probability of being right with the example minus that without it.

        Being right is an event, so its probabilities differ by no more than the total variation: `advantage`.
        """
        return self.advantage

    def tpr(self, fpr: float | FloatArray) -> FloatArray:
        """Largest true positive rate at a false positive rate, elementwise (Kairouz, Oh and Viswanath, 2015).

        min(e^epsilon fpr + delta, 1 - e^-epsilon (1 - delta - fpr), 1).

        >>> Guarantee(epsilon=math.log(3), delta=0.0).tpr(0.1).round(3).item()
        0.3
        """
        rate = np.asarray(fpr, dtype=np.float64)
        steep = np.exp(min(self.epsilon, 700.0)) * rate + self.delta
        flat = 1 - math.exp(-self.epsilon) * (1 - self.delta - rate)
        return np.asarray(np.minimum(np.minimum(steep, flat), 1.0))

    @property
    def auc(self) -> float:
        """Largest area under the curve of any membership attack: the area under `tpr`.

        >>> Guarantee(epsilon=0.0, delta=0.0).auc
        0.5
        """
        corner = (1 - self.delta) * math.exp(-self.epsilon) / (1 + math.exp(-self.epsilon))
        # straight from (0, delta) to (corner, 1 - corner) to (1 - delta, 1) to (1, 1)
        rates = np.array([0.0, corner, 1 - self.delta, 1.0])
        reached = np.array([self.delta, 1 - corner, 1.0, 1.0])
        return float((np.diff(rates) * (reached[1:] + reached[:-1]) / 2).sum())

    def exposure(self, references: int) -> float:
        """Largest mean exposure, in bits, of a canary among this many references.

        Without the canary its rank is uniform over the N + 1 places. So with it P(rank <= k) is at most `tpr` of k / (N
        + 1). The mean is largest where that is reached for every k.

        >>> round(Guarantee(epsilon=0.0, delta=0.0).exposure(100), 2)  # the mean exposure of chance
        1.4
        """
        places = references + 1
        ranks = np.arange(1, places + 1)
        reached = self.tpr(ranks / places)
        return float((np.diff(reached, prepend=0.0) * np.log2(places / ranks)).sum())
