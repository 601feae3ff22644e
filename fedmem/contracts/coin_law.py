"""Laws of random inclusion: how many runs each audit example is in.

Under `balanced` and `rate` every example is in as many runs. Under `owen` and
`beta` each run has an inclusion rate of its own, with which each example is in.
Under `one_of` each run has one example of every owning client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Law = Literal["balanced", "rate", "owen", "beta", "one_of"]


@dataclass(frozen=True, kw_only=True)
class CoinLaw:
    """A law of random inclusion.

    Attributes:
        law: `balanced`: in exactly half of the runs. `rate`: in exactly `round(rate * runs)` of them. `owen`: run r has
            a rate q ~ U(0, 1), and each example is in with probability q. `beta`: the same with q ~ Beta(beta, alpha).
            `one_of`: of the examples of each owning client, exactly one, with equal numbers of runs up to 1.
        rate: The share of runs under `rate`, and 0.5 otherwise.
        alpha, beta: The parameters under `beta`, and 1 otherwise. A large alpha means few examples in a run.

    Examples:
        >>> str(CoinLaw()), str(CoinLaw(law="rate", rate=0.7)), str(CoinLaw(law="beta", alpha=16.0))
        ('balanced', 'rate 0.7', 'beta(16, 1)')
    """

    law: Law = "balanced"
    rate: float = 0.5
    alpha: float = 1.0
    beta: float = 1.0

    def __str__(self) -> str:
        if self.law == "beta":
            return f"beta({self.alpha:g}, {self.beta:g})"
        return f"rate {self.rate:g}" if self.law == "rate" else self.law

    @property
    def varies(self) -> bool:
        """Whether each run has an inclusion rate of its own."""
        return self.law in ("owen", "beta")

    @property
    def compares_sides(self) -> bool:
        """Whether means over runs that have an example and over runs that do not differ by that example alone.

        >>> CoinLaw().compares_sides, CoinLaw(law="owen").compares_sides, CoinLaw(law="one_of").compares_sides
        (True, False, False)
        """
        return not self.varies and self.law != "one_of"

    @property
    def semivalue(self) -> str:
        """The semivalue that a mean over coins of this law is.

        >>> CoinLaw().semivalue, CoinLaw(law="owen").semivalue, CoinLaw(law="rate", rate=0.7).semivalue
        ('banzhaf', 'shapley', 'binomial 0.7')
        """
        names = {"balanced": "banzhaf", "owen": "shapley", "rate": f"binomial {self.rate:g}", "beta": str(self)}
        return names.get(self.law, str(self))


BALANCED = CoinLaw()
