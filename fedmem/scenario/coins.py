"""The law of random inclusion of a scenario."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedmem.contracts.coin_law import CoinLaw, Law
from fedmem.scenario.section import Section


class Coins(Section):
    """How many runs each audit example is in.

    >>> Coins(law="rate", rate=0.7).as_law
    CoinLaw(law='rate', rate=0.7, alpha=1.0, beta=1.0)
    """

    law: Law = Field(
        default="balanced",
        description="each example is in exactly half of the runs (balanced), or in a share of them (rate). Or each run "
        "draws the probability of each example: uniformly (owen), or by a beta distribution (beta). Or exactly one of "
        "the examples of each owning client is in (one_of)",
    )
    rate: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="the share of runs that each example is in; with rate alone"
    )
    alpha: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="with beta alone; the rate of a run is drawn from Beta(beta, alpha)"
    )
    beta: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None, description="with beta alone; of the Beta(alpha, beta)-Shapley value"
    )

    @property
    def as_law(self) -> CoinLaw:
        """The law, with the parameters that belong to it."""
        one = {name: value for name in ("rate", "alpha", "beta") if (value := getattr(self, name)) is not None}
        return CoinLaw(law=self.law, **one)
