"""What a promise about clients may count on: how a sampler picks them, as far as that is proven."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from fedmem.accounting import Adjacency, Sampling
from fedmem.catalogue import kind_of
from fedmem.components import Spaced
from fedmem.errors import ComponentError

_BY_DATA = ("by_size", "clustered", "atypical")
"""Samplers that look at what clients hold."""


@dataclass(frozen=True, kw_only=True)
class Credit:
    """The law by which clients are drawn, or by how many rounds their turns are apart, where that is what counts.

    `adjacency` is that of neighbours for which the bound holds, if no other is asked for.
    """

    sampling: Sampling
    rate: float
    adjacency: Adjacency
    pause: int | None = None


def credited(strategy: Any, sampler: Any, clients: int) -> Credit:
    """What the noise of this strategy may count on.

    Errors: `ComponentError` where who takes part depends on data, where nothing is known of it, and where a strategy
    counts on pauses that the sampler does not keep.
    """
    if _by_data(sampler):
        raise ComponentError(
            "sampler",
            f"{kind_of(sampler)} picks clients by what they hold or how they do, so that who takes part tells of "
            f"their data, whatever the noise of {kind_of(strategy)}; use {_remedy(strategy)}",
        )
    if counts_turns(strategy):
        pause = sampler.pause(clients) if isinstance(sampler, Spaced) else None
        if pause is None:
            raise ComponentError(
                "sampler",
                f"{kind_of(sampler)} may pick a client in any round, while the promise of {kind_of(strategy)} counts "
                f"on pauses between two turns of a client; use {_remedy(strategy)}, or strategy dp_fedavg",
            )
        # one client more would change whose turn it is, but for everyone
        whole = kind_of(sampler) == "everyone"
        return Credit(sampling="tree", rate=1.0, adjacency="add_remove" if whole else "zero_out", pause=pause)
    sampling, rate = drawn(sampler, clients)
    return Credit(sampling=sampling, rate=rate, adjacency="zero_out" if sampling == "fixed_size" else "add_remove")


def drawn(sampler: Any, clients: int) -> tuple[Sampling, float]:
    """The law of the cohorts, and the probability of one client: as everyone where nothing is known of how it draws."""
    kind = kind_of(sampler)
    if kind == "poisson":
        return "poisson", float(sampler.rate)
    if kind == "uniform":
        return "fixed_size", sampler.size / clients
    return "everyone", 1.0


def expected(strategy: Any, sampler: Any, clients: int) -> float | None:
    """How many clients are expected in a round; None where that is not known."""
    kind = kind_of(sampler)
    if counts_turns(strategy) and kind in ("cyclic", "min_separation"):
        return float(sampler.size)
    sampling, rate = drawn(sampler, clients)
    return rate * clients if sampling != "everyone" or kind == "everyone" else None


def counts_turns(strategy: Any) -> bool:
    """Whether the noise of a strategy is that of whole prefixes, so that it matters how often one client comes."""
    return callable(getattr(strategy, "moved", None))


def _remedy(strategy: Any) -> str:
    """Samplers with which something is promised."""
    return "min_separation, cyclic or everyone" if counts_turns(strategy) else "poisson, uniform or everyone"


def _by_data(sampler: Any) -> bool:
    """Whether who is picked depends on what clients hold, or on how training goes."""
    return any(kind_of(part) in _BY_DATA or bool(getattr(part, "needs", ())) for part in _parts(sampler))


def _parts(sampler: Any) -> Iterator[Any]:
    """A sampler and those inside it."""
    yield sampler
    for item in fields(sampler):
        part = getattr(sampler, item.name)
        if is_dataclass(part):
            yield from _parts(part)
