"""Coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from flwr.serverapp import strategy as flwr_strategy
from flwr.serverapp.strategy import Strategy

from ._rule import ALONE, Arrays, Round, ServerRule


@dataclass(frozen=True, kw_only=True)
class FedMedian(ServerRule):
    """The median of the clients' models in each coordinate (Yin et al., 2018).

    - Ignores the numbers of examples.
    - Less than half of the cohort can not move any coordinate out of the range of the others.
    - An even number of clients gives the mean of the two middle values. Keeps no state.
    - The message path is Flower's own class, which empties the replies that it aggregates: a watcher has to copy
      them first.

    Fields: none.

    >>> FedMedian().make(3).__class__.__name__
    'FedMedian'
    """

    reads: ClassVar[tuple[str, ...]] = ()
    weighting: ClassVar[str] = "uniform"

    def make(self, cohort_size: int) -> Strategy:
        """Flower's FedMedian."""
        return flwr_strategy.FedMedian(**ALONE)

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """Sort along the cohort, absent clients last, and take the middle of those present."""
        return {name: _median(values, rnd.present) for name, values in rnd.sent.items()}, state


def _median(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Median over axis 1 of (R, K, ...), of the places that are present."""
    shape = present.shape + (1,) * (values.ndim - 2)
    ascending = torch.where(present.reshape(shape), values, torch.full_like(values, torch.inf)).sort(dim=1).values
    count = present.sum(dim=1).reshape((-1, 1) + (1,) * (values.ndim - 2))
    low = ascending.take_along_dim(((count - 1) // 2).expand(-1, 1, *values.shape[2:]), dim=1)
    high = ascending.take_along_dim((count // 2).expand(-1, 1, *values.shape[2:]), dim=1)
    return ((low + high) / 2)[:, 0]
