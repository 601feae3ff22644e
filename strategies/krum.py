"""The model of the client whose nearest neighbours are closest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from ._rule import Arrays, Round, ServerRule
from ._selection import mean_of_best


@dataclass(frozen=True, kw_only=True)
class Krum(ServerRule):
    """The client with the least sum of squared distances to its K - f - 2 nearest others (Blanchard et al., 2017).

    The new model *is* the model of one client: whatever that client memorised, the server publishes. `multikrum` takes
    the mean of several.

    Guarantees:

    - ignores the numbers of examples; keeps no state;
    - up to `f` arbitrary clients are resisted where K >= 2 f + 3; a scenario whose cohorts are smaller is refused;
    - in a round with fewer clients nevertheless (a varying cohort, failures), the number of neighbours is at least one
      and at most all the others. A single client is taken as it is;
    - of clients with equal scores, as the nearest pair of three always are, the one with the lowest number goes first;
    - a model with values that are not finite is infinitely far from the others.

    Distances are sums of squared differences in float64. Flower's class uses the shortcut `|x|^2 + |y|^2 - 2 x y` in
    float32. It loses a typical update in the rounding of the weights, and takes other clients for the nearest of a
    client, which is itself.

    Fields:
        f: How many arbitrary clients a cohort may hold.

    >>> sent = {"w": torch.tensor([[[0.0], [1.0], [3.0], [90.0], [6.0]]])}
    >>> present = torch.ones((1, 5), dtype=torch.bool)
    >>> clients = torch.arange(5)[None]
    >>> round = Round(number=1, before={}, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> Krum(f=1).rule({}, round)[0]["w"].tolist()
    [[1.0]]

    Reference: Blanchard et al. (2017), machine learning with adversaries.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    weighting: ClassVar[str] = "uniform"

    f: Annotated[int, Ge(0)] = 0

    @property
    def min_cohort(self) -> int:
        """The cohort from which the guarantee holds."""
        return 2 * self.f + 3

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """The client of least score."""
        return mean_of_best(rnd, self.f, torch.ones(1, dtype=torch.int64)), state
