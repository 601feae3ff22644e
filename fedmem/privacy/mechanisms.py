"""The privacy guarantees of the parts of a scenario: which unit, against which adversary, at which epsilon.

Guarantees hold for an adversary that does not know which clients participated, and for noise that cannot be predicted.
This simulation writes participation down, and its noise follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from fedmem.contracts.client import ClientAlgorithm, PrivateAlgorithm, client_declaration
from fedmem.contracts.defence import Defence, defence_declaration
from fedmem.contracts.families import kind_of
from fedmem.contracts.sampler import Sampler
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration
from fedmem.errors import ComponentError, Problem
from fedmem.privacy.accounting import Releases, guarantee_of, noise_for
from fedmem.privacy.amplification import expected_cohort_size, sampling_assumptions
from fedmem.privacy.coverage import reads_sizes, uncovered_by_server

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Privacy

Component = TypeVar("Component")
_UNAIMED = (
    "null means that it is found for an epsilon, but privacy.target_epsilon is not given; write, for instance, "
    "privacy: {target_epsilon: 8}, or a number here"
)


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """One part of a scenario that adds noise: what it releases, and from whom that protects.

    `min_separation` is the minimum separation of a client's participations in rounds, where the guarantee depends on
    it. `covers` says which values the guarantee is about. With `same_rows` it holds only between neighbours with the
    same number of rows, since that number is used exactly.
    """

    part: str
    against: str
    clip: str
    releases: Releases
    covers: str
    min_separation: int | None = None
    same_rows: bool = False


def mechanisms(
    strategy: StrategyMaker, defences: Sequence[Defence], sampler: Sampler, privacy: Privacy, clients: int, rounds: int
) -> tuple[Mechanism, ...]:
    """Every noisy part, with what it has released after all rounds.

    Errors: `ComponentError` where cohorts or the strategy depend on data that no noise covers, and for neighbours that
    the sampling does not allow.
    """
    noisy_parts = []
    declared = strategy_declaration(strategy)
    if declared.noisy:
        assert declared.noise_multiplier is not None, "the scenario finds it before training"
        if exact := uncovered_by_server(strategy):
            raise ComponentError(
                "strategy",
                f"{kind_of(strategy)} reads {exact}, which its noise does not cover, so there is no guarantee. "
                "Use dp_fedavg, dp_adaptive or dp_ftrl, or declare on the class what it reads of clients "
                "(reads: ClassVar[tuple[str, ...]]) and which of that its noise covers (noise_covers)",
            )
        assumptions = sampling_assumptions(strategy, sampler, clients)
        adjacency = privacy.adjacency or assumptions.adjacency
        if adjacency == "add_remove" != assumptions.adjacency:
            others = "everyone" if assumptions.min_separation is not None else "poisson or everyone"
            raise ComponentError(
                "privacy.adjacency",
                f"add_remove with {kind_of(sampler)} is not defined: one client more would change the participations "
                f"of others; use zero_out or replace, or the sampler {others}",
            )
        releases = Releases(
            noise_multiplier=declared.noise_multiplier,
            sampling=assumptions.sampling,
            rate=assumptions.rate,
            count=rounds
            if assumptions.min_separation is None or declared.squared_sensitivity is None
            else declared.squared_sensitivity(rounds, assumptions.min_separation),
            delta=privacy.delta,
            unit="client",
            adjacency=adjacency,
        )
        noisy_parts.append(
            Mechanism(
                part="strategy",
                against="the server's models",
                clip="adaptive" if declared.clip is None else f"{declared.clip:g}",
                releases=releases,
                covers="the models that the server sends, of all rounds; not what single clients send",
                min_separation=assumptions.min_separation,
            )
        )
    noisy_parts += noise_at_clients(defences, privacy, rounds, reads_sizes(strategy, sampler))
    return tuple(noisy_parts)


def adds_noise(strategy: StrategyMaker) -> bool:
    """Whether a strategy guarantees privacy; how much noise it adds may still have to be found."""
    return strategy_declaration(strategy).noisy


def with_noise_multiplier(component: Component, noise_multiplier: float) -> Component:
    """A noisy component with another noise multiplier; every component is a frozen dataclass."""
    fields: Any = component
    changed: Component = replace(fields, noise_multiplier=noise_multiplier)
    return changed


def strategy_with_noise(
    strategy: StrategyMaker, sampler: Sampler, privacy: Privacy, clients: int, rounds: int
) -> StrategyMaker:
    """The strategy with the noise that meets `privacy.target_epsilon`, or as it is without a target.

    Errors: `ComponentError` where it has noise already, and that does not meet the target.
    """
    target = privacy.target_epsilon
    declared = strategy_declaration(strategy)
    if target is None or not declared.noisy:
        return strategy
    if declared.noise_multiplier is None:
        bare = with_noise_multiplier(strategy, 0.0)
        (mechanism,) = mechanisms(bare, (), sampler, privacy, clients, rounds)
        noise = noise_of(target, mechanism.releases)
        try:
            return with_noise_multiplier(strategy, noise)
        except ValueError as error:
            raise ComponentError(
                "strategy", f"privacy.target_epsilon {target:g} takes a noise_multiplier of {noise:g}: {error}"
            ) from error
    (mechanism,) = mechanisms(strategy, (), sampler, privacy, clients, rounds)
    guarantee = guarantee_of(mechanism.releases)
    if guarantee.epsilon > target:
        raise ComponentError(
            "strategy.noise_multiplier",
            f"{declared.noise_multiplier:g} gives {guarantee}, above privacy.target_epsilon, {target:g}; write "
            "noise_multiplier: null to have it found, or raise the target",
        )
    return strategy


@cache
def noise_of(target: float, releases: Releases) -> float:
    """The noise multiplier for a target."""
    # rounded up, so that a file shows few digits; the guarantee only gets better
    return -(-noise_for(target, releases) * 10**6 // 1) / 10**6


def problems(
    strategy: StrategyMaker,
    client: ClientAlgorithm,
    defences: Sequence[Defence],
    sampler: Sampler,
    privacy: Privacy,
    clients: int,
    rounds: int,
    cohort_by: str,
) -> Iterator[Problem]:
    """Problems of the privacy fields of a scenario."""
    declaration = client_declaration(client)
    is_private = isinstance(client, PrivateAlgorithm) and "noise_multiplier" in declaration.given
    if is_private and declaration.noise_multiplier is None and privacy.target_epsilon is None:
        yield Problem(path="client.noise_multiplier", message=_UNAIMED)
    declared = strategy_declaration(strategy)
    if not declared.noisy:
        if privacy.target_epsilon is not None and not is_private:
            yield Problem(
                path="privacy.target_epsilon",
                message=f"strategy {kind_of(strategy)} adds no noise that could be chosen for it; use dp_fedavg, "
                "dp_adaptive or dp_ftrl, or client dp_sgd, or leave target_epsilon out",
            )
        if privacy.adjacency is not None and not isinstance(client, PrivateAlgorithm):
            yield Problem(
                path="privacy.adjacency",
                message=f"strategy {kind_of(strategy)} adds no noise, so there is no guarantee for neighbours; "
                "use dp_fedavg, dp_adaptive or dp_ftrl, or leave adjacency out",
            )
        return
    if declared.noise_multiplier is None and privacy.target_epsilon is None:
        yield Problem(path="strategy.noise_multiplier", message=_UNAIMED)
        return
    if cohort_by == "strategy":
        yield Problem(
            path="cohort_by",
            message=f"how strategy {kind_of(strategy)} would pick clients is not known, so there is no guarantee; "
            "use cohort_by: sampler",
        )
    if privacy.delta >= 1 / clients:
        yield large_delta(privacy.delta, clients)
    expected_size = expected_cohort_size(strategy, sampler, clients)
    divisor = declared.expected_cohort_size
    if (
        expected_size is not None
        and declared.cap is None
        and divisor is not None
        and abs(divisor / expected_size - 1) > 0.01
    ):
        yield Problem(
            path="strategy.expected_cohort_size",
            message=f"sums are divided by {divisor:g}, but {expected_size:g} clients are expected in a round; "
            f"write expected_cohort_size: {expected_size:g}",
        )
    try:
        strategy_with_noise(strategy, sampler, privacy, clients, rounds)
        mechanisms(with_noise_multiplier(strategy, 0.0), defences, sampler, privacy, clients, rounds)
    except ComponentError as error:
        yield Problem(path=error.path, message=error.message)


def large_delta(delta: float, clients: int) -> Problem:
    """The problem of a delta that is not below one over the number of clients."""
    return Problem(
        path="privacy.delta",
        message=f"{delta:g} allows publishing one of {clients} clients; use less than 1/{clients}",
    )


_UPDATES = "the updates that clients send"


def noise_at_clients(defences: Sequence[Defence], privacy: Privacy, rounds: int, sizes: str) -> Iterator[Mechanism]:
    """Noise that clients add themselves, right after a clip: whatever comes after it uses what is noisy already.

    `sizes` names the components that use exact numbers of rows.
    """
    covers = "the values of the updates"
    covers += f", between clients with the same number of rows, because {sizes} reads that number" if sizes else ""
    bound: float | None = None
    for defence in defences:
        declared = defence_declaration(defence)
        if declared.gaussian_deviation is not None and bound is not None:
            releases = Releases(
                noise_multiplier=declared.gaussian_deviation / bound,
                sampling="everyone",
                count=rounds,
                delta=privacy.delta,
                unit="client",
                # who sees a client's message sees that it came: another client's data are the neighbour
                adjacency="replace",
            )
            yield Mechanism(
                part="defences",
                against=_UPDATES,
                clip=f"{bound:g}",
                releases=releases,
                covers=f"{covers}; not the numbers of rows and the losses that clients report",
                same_rows=bool(sizes),
            )
            return
        # what a defence without a declared bound does to the length is not known
        bound = declared.norm_bound
