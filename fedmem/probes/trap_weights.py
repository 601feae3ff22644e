"""Trap weights: a dishonest server sends units that few rows activate, and reads rows that activate one alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray
from fedmem.probes._dishonest import DishonestServer, Plan, find_isolated
from fedmem.probes._first_layer import FirstLayer

DRAWS = 200
"""Batches of population rows that the expectation is a mean over."""


@dataclass(frozen=True, kw_only=True)
class TrapWeights(DishonestServer):
    """A server that draws new weights for the first layer, so that few rows activate a unit.

    The round of a client is replayed from the changed model. The federation trains as it does without the probe. Each
    unit has normal weights: a random half are negative, and the other half positive and `scale` times as large. Biases
    are 0, and all other layers are the real ones. At the scale that is chosen, a row of the population activates a unit
    with probability 1/n. Here n is the number of rows in the message or sum. That maximises the expected number
    of units with one row. Where one row alone activates a unit, the gradient of its weights divided by that of its bias
    is the row. No layer is added, and no two units are alike.

    Readings are those of the probe `imprint`. The cells of `isolated_rows` are the units. `isolated_rows_expected` is
    the mean over batches of as many rows of the population. It is NaN where the population is smaller than that.

    What the server is granted: the architecture, the number of rows, and a population like the clients' rows, for the
    scale. It also knows the client algorithm with its settings and payload. It knows neither the rows nor the labels.
    No quotient is picked with knowledge of the rows.

    Fields

    - `scale`: the size of positive weights against negative ones, if it is not that of the population. Smaller means
      that fewer rows activate a unit.
    - `steps`: numbers of local steps after which the client answers; by default, all of its steps.
    - `tolerance`: largest difference of an entry that counts as exact, on inputs in [0, 1].
    - `rounds`: which observed rounds to attack; if left out, the first after round 0 and the last.
    - `victims`: clients attacked in each round and run.
    - `runs`: how many runs are attacked, from run 0 on.
    - `gallery`: how many images a gallery has at most, except for the references of canaries.
    - `every`: attack only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to attack: `local`, `sum` or both.

    Guarantees: deterministic; nothing is changed; the readings of a run do not depend on other runs.

    Refused where the model does not begin with a linear layer, a ReLU and another linear layer, or without a
    population.

    >>> TrapWeights(scale=0.9).replays_per_client(3)
    1

    References: Boenisch, Dziedzic, Schuster, Shamsabadi, Shumailov and Papernot (2023), When the Curious Abandon
    Honesty.
    """

    _kind: ClassVar[str] = "trap_weights"

    scale: Annotated[float, Gt(0)] | None = None

    def _plan(self, arrived: FloatArray, layer: FirstLayer, count: int, rng: np.random.Generator) -> Plan:
        """Weights half negative and half positive, in random places of each unit."""
        width = arrived.shape[1]
        sizes = np.abs(rng.standard_normal((layer.units, width))) / np.sqrt(width)
        negative = rng.permuted(np.tile(np.arange(width) < (width + 1) // 2, (layer.units, 1)), axis=1)
        parts = np.where(negative, -sizes, 0.0), np.where(negative, 0.0, sizes)
        scale = self.scale or _scale(arrived @ parts[0].T, arrived @ parts[1].T, 1.0 / count)
        return Plan(weight=parts[0] + scale * parts[1], bias=np.zeros(layer.units), following=None, adjacent=False)

    def _expected_share(self, plan: Plan, arrived: FloatArray, count: int, rng: np.random.Generator) -> float:
        """The mean share of rows that are alone in a unit, over batches of the population."""
        if len(arrived) < count:
            return float("nan")
        cells = plan.cells(arrived)
        batches = (cells[rng.permutation(len(cells))[:count]] for _ in range(DRAWS))
        return float(np.mean([find_isolated(batch).mean() for batch in batches]))


def _scale(below: FloatArray, above: FloatArray, share: float) -> float:
    """The scale at which that share of rows and units (P, k) has `below + scale * above > 0`; 1 where none can.

    >>> _scale(np.array([[-2.0, -1.0]]), np.array([[1.0, 1.0]]), 0.5)
    1.5
    """
    is_possible = above > 0
    ratios = np.full(above.shape, np.inf)
    ratios[is_possible] = -below[is_possible] / above[is_possible]
    scale = float(np.quantile(ratios, share, method="median_unbiased")) if is_possible.any() else np.inf
    return scale if np.isfinite(scale) and scale > 0 else 1.0
