"""Contracts of samplers: their inputs from earlier rounds, and their methods."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.client_values import SOME_READS, Value
from fedmem.contracts.declarations import Declaration, declare, read_declaration
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class History:
    """The inputs of a sampler before a round: N, and properties of each client. Never a coin.

    `sizes`, `atypical` (N,): numbers of rows, and of atypical audit examples, in or out. `order` (N,): the clients
    as they signed up, in random order. `uniforms` (N,): uniforms in [0, 1), one for each client, drawn once, for traits
    that stay with it. `available` (N,): clients that can be reached in this round; all, unless the sampler is
    `Availability`. `last_round` (N,): the round in which it was last picked, 0 for never. `last_loss`, `last_norm`
    (N,): mean loss and norm of the update when it last trained, NaN for never. They depend on coins, so they are those
    of a pilot run, or of the run itself where each draws its own roster. They stay NaN for samplers without `needs` and
    under `roster: shared`. Arrays are read-only and are updated after each round.
    """

    num_clients: int
    sizes: IntArray
    atypical: IntArray
    order: IntArray
    uniforms: FloatArray
    available: BoolArray
    last_round: IntArray
    last_loss: FloatArray
    last_norm: FloatArray

    @staticmethod
    def start(
        sizes: Sequence[int] | IntArray,
        atypical: Sequence[int] | IntArray = (),
        order: Sequence[int] | IntArray = (),
        uniforms: Sequence[float] | FloatArray = (),
    ) -> History:
        """Before the first round: no client was picked, and all can be reached.

        By default no client holds atypical examples, the order is 0 .. N-1, and uniforms are evenly spaced in it.

        >>> History.start([30, 20]).last_round.tolist()
        [0, 0]
        """
        count = len(sizes)
        return History(
            num_clients=count,
            sizes=np.array(sizes, dtype=np.int64),
            atypical=np.array(atypical if len(atypical) else [0] * count, dtype=np.int64),
            order=np.array(order if len(order) else np.arange(count), dtype=np.int64),
            uniforms=np.array(uniforms if len(uniforms) else (np.arange(count) + 0.5) / count, dtype=np.float64),
            available=np.ones(count, dtype=np.bool_),
            last_round=np.zeros(count, dtype=np.int64),
            last_loss=np.full(count, np.nan),
            last_norm=np.full(count, np.nan),
        )

    def require(self, size: int, group: str = "cohort") -> None:
        """Errors: `ComponentError` if there are fewer than `size` clients for a `group`."""
        if size > self.num_clients:
            raise ComponentError(
                "sampler.size",
                f"a {group} of {size} out of {self.num_clients} clients; "
                f"use at most {self.num_clients}, or raise clients to {size}",
            )


@runtime_checkable
class Sampler(Protocol):
    """Picks the cohort of a round: sorted client indices, possibly none. May declare `SamplerDeclaration`."""

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray: ...


@runtime_checkable
class KnownProbabilities(Sampler, Protocol):
    """A sampler whose inclusion probabilities are known.

    `probabilities` (N,): for each client the probability that `cohort` picks it, given all that `history` shows before
    this round, over the draws of `rng` alone. So a client within its minimum separation has 0, and a client that is
    certain to be picked has 1. Draws before a round hide no client in it. None where they are not known.
    """

    def probabilities(self, round_number: int, history: History) -> FloatArray | None: ...


@runtime_checkable
class MinimumSeparation(Sampler, Protocol):
    """A sampler with a minimum separation between the participations of a client.

    `min_separation` is the minimum separation in rounds, whatever is drawn and whatever the clients hold, in a
    federation of that many clients. It is 1 where a client may participate in every round. None where there is no
    minimum.
    """

    def min_separation(self, num_clients: int) -> int | None: ...


@runtime_checkable
class Availability(Sampler, Protocol):
    """A sampler that knows which clients can be reached.

    `reachable_clients` (N,) is called once before each round; then `history.available` is the answer. During the call
    it is the answer of the round before.
    """

    def reachable_clients(self, round_number: int, history: History, rng: np.random.Generator) -> BoolArray: ...


@dataclass(frozen=True, kw_only=True)
class PickedCohort:
    """The clients picked for a round, sorted, and the probability of each (None: it is not known)."""

    clients: tuple[int, ...]
    probabilities: FloatArray | None = None

    def probability_of(self, client: int) -> float | None:
        """The probability with which a picked client was picked."""
        return None if self.probabilities is None else float(self.probabilities[bisect_left(self.clients, client)])


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """The cohorts that one further run picked in each round; how many clients `failed` in it, and how long it took.

    That run is none of the analysed runs, and its coins are independent of theirs. So the participants of the analysed
    runs are not informative about their coins.
    """

    rounds: tuple[PickedCohort, ...]
    failed: int = 0
    seconds: float = 0.0

    @property
    def clients(self) -> int:
        """How many different clients were picked at all."""
        return len({client for cohort in self.rounds for client in cohort.clients})

    def picked_in(self, round_number: int) -> PickedCohort:
        """Of one round."""
        return self.rounds[round_number - 1]


Law = Literal["poisson", "fixed_size", "everyone", "spaced"]


@dataclass(frozen=True, kw_only=True)
class SamplerDeclaration(Declaration):
    """The declarations of a sampler, with their defaults.

    A subclass with methods of its own declares again what the privacy accountant uses.

    Attributes:
        needs: What it reads of `History` that depends on training: `last_loss`, `last_norm`.
        reads: Values of clients that it reads: `rows` (`History.sizes`), `atypical` (`History.atypical`); None if it
            does not declare them, so that there is no privacy guarantee, whatever its `probabilities`.
        law: Distribution of the cohorts. `poisson`: each client independently with probability `rate`. `fixed_size`:
            all sets of `size` clients are equally likely. `everyone`: all clients. `spaced`: `size` clients, and
            participations of a client at least `min_separation` rounds apart. None: no amplification by sampling.
        displaces_nobody: Whether one client more takes no other's place, so that a guarantee may compare a client more
            or less (`add_remove`).
        min_separation: `min_separation(num_clients)`, see `MinimumSeparation`.
        size: Clients in every cohort.
        rate: Probability of each client.
        candidates: Clients among which a cohort is chosen.
        expected: Expected number of clients in a cohort.
        separation: Rounds from one participation of a client to its next, at least.
        prefers_atypical: Whether clients with atypical audit examples are likelier to take part.
    """

    needs: tuple[Literal["last_loss", "last_norm"], ...] = declare((), "a tuple of last_loss, last_norm or both")
    reads: tuple[Value, ...] | None = declare(None, SOME_READS, renewed=True)
    law: Law | None = declare(None, "poisson, fixed_size, everyone or spaced", renewed=True)
    displaces_nobody: bool = declare(False, "true or false", renewed=True)
    min_separation: Callable[[int], int | None] | None = declare(
        None, "a method min_separation(num_clients)", renewed=True
    )
    size: int | None = declare(None, "a number of clients")
    rate: float | None = declare(None, "a probability")
    candidates: int | None = declare(None, "a number of clients")
    expected: float | None = declare(None, "a number of clients")
    separation: int | None = declare(None, "a number of rounds")
    prefers_atypical: bool = declare(False, "true or false")


def sampler_declaration(sampler: object) -> SamplerDeclaration:
    """The declarations of a sampler.

    >>> from fedmem.samplers.uniform import Uniform
    >>> one = sampler_declaration(Uniform(size=3))
    >>> one.law, one.size, one.reads, one.needs
    ('fixed_size', 3, (), ())
    """
    return read_declaration(SamplerDeclaration, sampler)
