"""Federated averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from flwr.serverapp import strategy as flwr_strategy
from flwr.serverapp.strategy import Strategy

from ._rule import ALONE, Arrays, Round, RuleStrategy, ServerRule, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class FedAvg(ServerRule):
    """The mean of the clients' models, `w = sum_k a_k w_k` (McMahan et al., 2017).

    - `weighting: size`: `a_k` is the client's share of the cohort's examples. The message path is Flower's own class.
    - `weighting: uniform`: every client of the cohort counts the same.
    - Keeps no state. A single client of the cohort moves the model by at most its own share of its update.

    Fields:
        weighting: `size` (by number of examples) or `uniform`.

    >>> FedAvg(weighting="uniform").weighting
    'uniform'
    """

    central: ClassVar[bool] = True

    weighting: Literal["size", "uniform"] = "size"

    @property
    def reads(self) -> tuple[str, ...]:
        """The numbers of rows, where clients count by them."""
        return ("rows",) if self.weighting == "size" else ()

    def make(self, cohort_size: int) -> Strategy:
        """Flower's FedAvg for `size`; the rule as a strategy for `uniform`."""
        return flwr_strategy.FedAvg(**ALONE) if self.weighting == "size" else RuleStrategy(self)

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """The weighted mean of what was sent."""
        weights = rnd.weights if self.weighting == "size" else torch.ones_like(rnd.weights)
        return weighted_mean(rnd.sent, share(weights, rnd.present)), state
