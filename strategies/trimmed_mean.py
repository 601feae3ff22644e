"""Coordinate-wise trimmed mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt

from ._rule import Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(ServerRule):
    """In each coordinate, the mean without the k largest and the k smallest values (Yin et al., 2018).

    k = floor(beta K), where K counts the clients that answered. Cohorts of less than 1 / beta clients lose none, and
    get the plain mean.

    Guarantees:

    - ignores the numbers of examples; keeps no state;
    - as long as at most k clients are arbitrary, each coordinate lies within the range of the others. A value that is
      not a number counts as the largest;
    - ties change nothing: equal values are interchangeable; nor does the order of the clients, to the last bit.

    Adds up in float64 and in ascending order, so that a run's result does not depend on how it was sorted. Flower's
    FedTrimmedAvg adds up in float32 in the order that a partial sort happens to leave, and is no bitwise reference.

    Fields:
        beta: Share of the cohort that is cut off on each side.

    >>> sent = {"w": torch.tensor([[[0.0], [1.0], [2.0], [3.0], [90.0]]])}
    >>> present = torch.ones((1, 5), dtype=torch.bool)
    >>> round = Round(number=1, before={}, sent=sent, weights=present.double(), present=present, clients=present.long())
    >>> TrimmedMean(beta=0.2).rule({}, round)[0]["w"].tolist()
    [[2.0]]

    Reference: Yin et al. (2018), Byzantine-robust distributed learning.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    weighting: ClassVar[str] = "uniform"

    beta: Annotated[float, Ge(0), Lt(0.5)] = 0.2

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Sort along the cohort, absent clients last, and average the middle of those present."""
        count = rnd.present.sum(dim=1)
        # 0.29 * 100 is 28.999999999999996: a product that is whole up to rounding is whole
        cut = torch.floor(count.double() * self.beta + 1e-9).long()
        return {name: _middle(values, rnd.present, count, cut) for name, values in rnd.sent.items()}, state


def _middle(values: torch.Tensor, present: torch.Tensor, count: torch.Tensor, cut: torch.Tensor) -> torch.Tensor:
    """Mean over axis 1 of (R, K, ...), of the places from `cut` to `count - cut` in ascending order."""
    ones = (1,) * (values.ndim - 2)
    # a sort puts NaN after infinity, so what is absent comes after everything that was sent
    missing_values = torch.full_like(values, torch.nan)
    ascending = torch.where(present.reshape(present.shape + ones), values, missing_values).sort(dim=1).values.double()
    total = torch.zeros_like(ascending[:, 0])
    for place in range(values.shape[1]):
        is_middle = ((place >= cut) & (place < count - cut)).reshape((-1, *ones))
        total = total + torch.where(is_middle, ascending[:, place], torch.zeros_like(total))
    return (total / (count - 2 * cut).clamp(min=1).reshape((-1, *ones))).to(values.dtype)
