"""Selection bias away from clients that report a high risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History
from fedmem.samplers._picking import pick_by_log_weight, with_rows


@dataclass(frozen=True, kw_only=True)
class Wary:
    """Clients are drawn one after another, without replacement, with weights exp(−`beta` z_k).

    z_k = (s_k − mean of s) / (standard deviation of s), where s_k is one number that client k reported when it last
    trained. It is its mean training loss, or the norm of its update. Mean and deviation are over the clients with rows
    that have reported. A client that has not reported yet has z = 0. A client with a high loss holds rows that the
    model does not predict, and such rows tend to be memorised. So `wary` is the opposite of `atypical`, with what a
    server can see.

    Fields

    - `size`: clients in every cohort, K.
    - `beta`: strength of the aversion; 0 is uniform.
    - `by`: the number that is reported, `loss` or `norm`.

    Guarantees:

    - sorted, distinct, always exactly `size` clients, never one without rows;
    - one standard deviation more divides the weight of a client by e^beta; no client is excluded;
    - the first client drawn is client k with probability softmax(−beta z)_k;
    - independent of the round.

    It lowers how often such clients take part, and so also how well the model serves them. Reports are not protected.

    Errors: `ComponentError` if fewer than `size` clients have rows.

    >>> from dataclasses import replace
    >>> history = replace(History.start([9] * 4), last_loss=np.array([0.1, 0.1, 0.1, 5.0]))
    >>> Wary(size=3, beta=50.0).cohort(5, history, np.random.default_rng(0)).tolist()
    [0, 1, 2]
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)

    size: Annotated[int, annotated_types.Ge(1)] = 10
    beta: Annotated[float, annotated_types.Ge(0)] = 1.0
    by: Literal["loss", "norm"] = "loss"

    @property
    def needs(self) -> tuple[Literal["last_loss", "last_norm"], ...]:
        """The report that it reads."""
        return ("last_loss",) if self.by == "loss" else ("last_norm",)

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        clients = with_rows(history, self.size)
        reports = history.last_loss if self.by == "loss" else history.last_norm
        return clients[pick_by_log_weight(-self.beta * _deviations(reports[clients]), self.size, rng)]


def _deviations(reports: FloatArray) -> FloatArray:
    """Standardised reports, 0 for those that are missing; the largest finite one stands for what is infinite.

    >>> _deviations(np.array([1.0, np.nan, 3.0])).tolist()
    [-1.0, 0.0, 1.0]
    """
    known = ~np.isnan(reports)
    finite = reports[np.isfinite(reports)]
    deviations = np.zeros(len(reports))
    # equal numbers have no spread, and a rest by rounding must not prefer any client
    if len(finite) and np.ptp(finite):
        values = np.minimum(reports[known], finite.max())
        deviations[known] = (values - values.mean()) / values.std()
    return deviations
