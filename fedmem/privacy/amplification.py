"""Sampling assumptions that the privacy accountant may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.sampler import Sampler, sampler_declaration
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration
from fedmem.errors import ComponentError
from fedmem.privacy.accounting import Adjacency, Sampling
from fedmem.privacy.canary_directions import CanaryDirections
from fedmem.privacy.coverage import minimum_separation_of, sampler_reads

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class SamplingAssumptions:
    """The law by which clients are drawn, or the minimum separation of their participations, where that counts.

    `adjacency` is that of neighbours for which the bound holds, if no other is asked for.
    """

    sampling: Sampling
    rate: float
    adjacency: Adjacency
    min_separation: int | None = None


def sampling_assumptions(strategy: StrategyMaker, sampler: Sampler, clients: int) -> SamplingAssumptions:
    """The sampling assumptions that the accountant of this strategy may use.

    Errors: `ComponentError` where participation depends on data, and where nothing is known of it. Also where a
    strategy needs a minimum separation that the sampler does not keep.
    """
    for _, part in nested_components(sampler):
        reads = sampler_reads(part)
        if "unknown" in reads:
            raise ComponentError(
                "sampler",
                f"nothing is known of how {kind_of(part)} picks clients. The choice may leak their data, whatever the "
                f"noise of {kind_of(strategy)}. Use {_remedy(strategy)}, or, for a class of your own that reads no "
                "values of clients, declare reads: ClassVar[tuple[str, ...]] = ()",
            )
        if reads:
            raise ComponentError(
                "sampler",
                f"{kind_of(part)} picks clients by their data or training, so participation leaks their data, whatever "
                f"the noise of {kind_of(strategy)}; use {_remedy(strategy)}",
            )
    # with other samplers one client more would take the place of another
    alone = all(sampler_declaration(part).displaces_nobody for _, part in nested_components(sampler))
    adjacency: Adjacency = "add_remove" if alone else "zero_out"
    if counts_participations(strategy):
        separation = minimum_separation_of(sampler, clients)
        if separation is None:
            raise ComponentError(
                "sampler",
                f"{kind_of(sampler)} may pick a client in any round, while the guarantee of {kind_of(strategy)} counts "
                f"on a minimum separation of a client's participations. Use {_remedy(strategy)}, or strategy dp_fedavg",
            )
        return SamplingAssumptions(sampling="tree", rate=1.0, adjacency=adjacency, min_separation=separation)
    sampling, rate = sampling_law(sampler, clients)
    return SamplingAssumptions(sampling=sampling, rate=rate, adjacency=adjacency)


def sampling_law(sampler: Sampler, clients: int) -> tuple[Sampling, float]:
    """The law of the cohorts, and the probability of one client: as `everyone` where no amplification is proven."""
    declared = sampler_declaration(sampler)
    if declared.law == "poisson" and declared.rate is not None:
        return "poisson", float(declared.rate)
    if declared.law == "fixed_size" and declared.size is not None:
        return "fixed_size", declared.size / clients
    return "everyone", 1.0


def expected_cohort_size(strategy: StrategyMaker, sampler: Sampler, clients: int) -> float | None:
    """The expected number of clients in a round, canaries included; None where that is not known."""
    declared = sampler_declaration(sampler)
    # a canary comes as often as a real client
    more = 1 + (strategy_declaration(strategy).canary_clients or 0) / clients
    if counts_participations(strategy) and declared.law == "spaced" and declared.size is not None:
        return float(declared.size * more)
    sampling, rate = sampling_law(sampler, clients)
    return rate * clients * more if sampling != "everyone" or declared.law == "everyone" else None


def canaries_of(scenario: Scenario) -> CanaryDirections | None:
    """The clients of random direction of a scenario; None where it has none."""
    return canaries(scenario.strategy, scenario.sampler, scenario.clients, scenario.training_seed)


def canaries(strategy: StrategyMaker, sampler: Sampler, clients: int, seed: int) -> CanaryDirections | None:
    """Canary clients in addition to the clients that the sampler picks. They participate as often as these.

    With `poisson` and `everyone` as one client more; with `uniform` with the inclusion probability of each client.
    Where participations are periodic, a client participates once in every `separation` rounds, from a random
    first round.

    Errors: `ComponentError` for a sampler with which that is not defined.
    """
    count = strategy_declaration(strategy).canary_clients
    if not count:
        return None
    kind, declared = kind_of(sampler), sampler_declaration(sampler)
    sampling, rate = sampling_law(sampler, clients)
    if sampling != "everyone" or declared.law == "everyone":
        zero_out = sampling == "fixed_size" or (counts_participations(strategy) and declared.law != "everyone")
        return CanaryDirections(seed=seed, count=count, rate=rate, adjacency="zero_out" if zero_out else "add_remove")
    separation, size = minimum_separation_of(sampler, clients), declared.size
    if declared.law == "spaced" and separation is not None and size is not None:
        if separation * size == clients:
            return CanaryDirections(seed=seed, count=count, min_separation=separation, adjacency="zero_out")
        raise ComponentError(
            "strategy.canary_clients",
            f"a canary client could come when clients of {kind} do only if these come periodically: {size} "
            f"in each of {separation} rounds are {separation * size}, not all of {clients}; make clients as many",
        )
    raise ComponentError(
        "strategy.canary_clients",
        f"how often a client that is not in the federation would be picked by {kind} is not defined. Use poisson, "
        "uniform or everyone, or leave canary_clients out",
    )


def counts_participations(strategy: StrategyMaker) -> bool:
    """Whether the noise of a strategy is that of whole prefixes, so that it matters how often one client comes."""
    return strategy_declaration(strategy).counts_participations


def _remedy(strategy: StrategyMaker) -> str:
    """Samplers for which this strategy has a guarantee, as text."""
    return "min_separation, cyclic or everyone" if counts_participations(strategy) else "poisson, uniform or everyone"
