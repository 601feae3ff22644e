"""The mean of the clients whose nearest neighbours are closest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from ._rule import Arrays, Round, ServerRule
from ._selection import mean_of_best


@dataclass(frozen=True, kw_only=True)
class MultiKrum(ServerRule):
    """The unweighted mean of the `keep` clients with the least scores of Krum (Blanchard et al., 2017).

    A score is the sum of squared distances to the K - f - 2 nearest others, as in `krum`, which is this with `keep` 1.
    A client unlike the others is left out as a whole, and nothing of it reaches the aggregate.

    Guarantees:

    - ignores the numbers of examples; keeps no state;
    - up to `f` arbitrary clients are resisted where K >= 2 f + 3 and `keep` clients are left without them. A scenario
      whose cohorts are smaller is refused;
    - in a round with fewer clients nevertheless, the number of neighbours is at least one and at most all the others.
      `keep` is then at most all of them;
    - ties go to the lowest client number, and a model that is not finite is infinitely far from the others.

    Flower's class weights the chosen clients by their numbers of examples, which the sender states and the published
    rule ignores. It measures distances in float32 (see `krum`).

    Fields:
        f: How many arbitrary clients a cohort may hold.
        keep: How many clients are averaged. Left out, it is K - 2 f - 3, the most for which convergence is proven, but
            at least one.

    >>> sent = {"w": torch.tensor([[[0.0], [1.0], [3.0], [90.0], [6.0]]])}
    >>> present = torch.ones((1, 5), dtype=torch.bool)
    >>> clients = torch.arange(5)[None]
    >>> round = Round(number=1, before={}, sent=sent, weights=present.double(), present=present, clients=clients)
    >>> MultiKrum(f=1, keep=2).rule({}, round)[0]["w"].tolist()
    [[0.5]]

    Reference: Blanchard et al. (2017), machine learning with adversaries.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    f: Annotated[int, Ge(0)] = 0
    keep: Annotated[int, Ge(1)] | None = None

    @property
    def min_cohort(self) -> int:
        """The cohort from which the guarantee holds and `keep` clients can be found without the arbitrary ones."""
        return max(2 * self.f + 3, (self.keep or 1) + self.f)

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """The mean of the clients of least score."""
        count = rnd.present.sum(dim=1, keepdim=True)
        keep = (count - 2 * self.f - 3).clamp(min=1) if self.keep is None else torch.full_like(count, self.keep)
        return mean_of_best(rnd, self.f, keep), state
