"""Clients that were picked and do not come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.sampler import (
    Availability,
    History,
    KnownProbabilities,
    MinimumSeparation,
    Sampler,
    sampler_declaration,
)
from fedmem.errors import ComponentError
from fedmem.samplers.everyone import Everyone


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Another sampler picks; each client it picked is lost with its own probability p_k, independently of the others.

    p_k is `rate` for all. With a `concentration` c it is a draw of Beta(c `rate`, c (1 - `rate`)) for each client,
    which keeps it in all rounds. The mean is `rate`, and the smaller c, the more clients are lost nearly always or
    nearly never. A lost client is not in the cohort, so that nothing waits for it, and nothing is tolerated or counted
    as failed. The picking sampler takes it for a client that was not picked.

    Fields

    - `sampler`: the sampler that picks.
    - `rate`: probability that a picked client is lost; with a concentration its mean over clients.
    - `concentration`: how similar the clients' probabilities are; if left out, all have the same probability.

    Guarantees:

    - sorted and distinct, possibly empty;
    - with `rate` 0 the cohorts are those of `sampler`. Whether a client is lost depends on draws alone, neither on its
      rows nor on coins;
    - inclusion probabilities are those of `sampler` times 1 - p_k, where they are known.

    Errors: those of `sampler`.

    >>> history = History.start([9] * 5)
    >>> Dropout(rate=0.4).cohort(1, history, np.random.default_rng(0)).tolist()
    [0, 4]
    >>> Dropout(rate=0.4, concentration=0.5).probabilities(1, history).round(2).tolist()
    [1.0, 0.98, 0.76, 0.25, 0.01]

    Reference: Bonawitz et al. (2019), towards federated learning at scale, on how many devices are lost in a round.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    # the picking sampler has to say so too
    displaces_nobody: ClassVar[bool] = True

    sampler: Sampler = field(default_factory=Everyone)
    rate: Annotated[float, annotated_types.Ge(0), annotated_types.Lt(1)] = 0.1
    concentration: Annotated[float, annotated_types.Gt(0)] | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The values of a history that the picking sampler reads."""
        return sampler_declaration(self.sampler).needs

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        try:
            cohort = self.sampler.cohort(round_number, history, rng)
        except ComponentError as error:
            # A sampler that is picked by another does not know where it stands.
            raise ComponentError(f"sampler.{error.path}", error.message) from error
        return cohort[rng.random(len(cohort)) >= self._rates(history)[cohort]]

    def reachable_clients(self, round_number: int, history: History, rng: np.random.Generator) -> BoolArray:
        """(N,) whom the picking sampler can reach."""
        if isinstance(self.sampler, Availability):
            return self.sampler.reachable_clients(round_number, history, rng)
        return history.available

    def probabilities(self, round_number: int, history: History) -> FloatArray | None:
        """(N,) inclusion probabilities, None where those of the picking sampler are not known."""
        probabilities = (
            self.sampler.probabilities(round_number, history) if isinstance(self.sampler, KnownProbabilities) else None
        )
        return None if probabilities is None else probabilities * (1 - self._rates(history))

    def min_separation(self, num_clients: int) -> int | None:
        """That of the picking sampler: a lost client does not participate."""
        return self.sampler.min_separation(num_clients) if isinstance(self.sampler, MinimumSeparation) else None

    def _rates(self, history: History) -> FloatArray:
        """(N,) the probability that each is lost."""
        if self.concentration is None or not self.rate:
            return np.broadcast_to(np.float64(self.rate), history.num_clients)
        return _quantiles(self.rate, self.concentration, history.uniforms.tobytes())


@lru_cache(maxsize=32)
def _quantiles(mean: float, concentration: float, uniforms: bytes) -> FloatArray:
    """Beta quantiles at these uniforms, which stay the same from round to round and take long for many clients."""
    from scipy.special import betaincinv

    quantiles: FloatArray = betaincinv(mean * concentration, (1 - mean) * concentration, np.frombuffer(uniforms))
    return quantiles
