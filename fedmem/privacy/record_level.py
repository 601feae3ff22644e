"""Privacy checks that need the data: noise of records for a target, delta, and the dimensions for canaries."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.client import ClientAlgorithm, PrivateAlgorithm, client_declaration
from fedmem.contracts.federation import Federation
from fedmem.contracts.strategy import strategy_declaration
from fedmem.errors import Problem, ScenarioError
from fedmem.privacy.accounting import Accountant, Releases, guarantee_of
from fedmem.privacy.coverage import minimum_separation_of
from fedmem.privacy.epsilon_estimates import FEWEST_DIMENSIONS
from fedmem.privacy.mechanisms import noise_of, with_noise_multiplier
from fedmem.privacy.spending import record_neighbours

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def is_open(client: ClientAlgorithm) -> bool:
    """Whether the noise of a client is still to be found."""
    return isinstance(client, PrivateAlgorithm) and client_declaration(client).noise_multiplier is None


def client_with_noise(scenario: Scenario, federation: Federation) -> ClientAlgorithm:
    """The client with the least noise that meets the target for every client; other clients unchanged.

    Each client is assumed to participate as often as the sampler can pick it: in every round, or at its minimum
    separation. So the guarantee after the run is at most the target.

    Errors: `ComponentError` at `privacy.target_epsilon` if no noise meets it.
    """
    target = scenario.privacy.target_epsilon
    if target is None or not is_open(scenario.client):
        return scenario.client
    noise, candidates = 0.0, list(releases(scenario, federation, 0.0))
    while candidates:
        noise = max(noise, noise_of(target, candidates[0]))
        # the worst first, as far as theory of many small steps tells; the others are tried out
        candidates = [
            release for release in candidates[1:] if not _keeps_target(replace(release, noise_multiplier=noise), target)
        ]
    return with_noise_multiplier(scenario.client, noise)


def problems(scenario: Scenario, federation: Federation) -> Iterator[Problem]:
    """Problems of a guarantee for records whose numbers are known, and of canary clients."""
    if strategy_declaration(scenario.strategy).canary_clients:
        size = sum(value.numel() for value in federation.initial.values())
        if size < FEWEST_DIMENSIONS:
            yield Problem(
                path="strategy.canary_clients",
                message=f"the model has {size} parameters; in less than {FEWEST_DIMENSIONS} dimensions cosines of "
                "random directions are not normal; use a larger model, or leave canary_clients out",
            )
    if not isinstance(scenario.client, PrivateAlgorithm):
        return
    min_rows, _ = sizes(scenario, federation)
    some = min_rows[min_rows > 0]
    delta, target = scenario.privacy.delta, scenario.privacy.target_epsilon
    if len(some) and delta >= 1 / some.min():
        yield Problem(
            path="privacy.delta",
            message=f"{delta:g} allows publishing one of the {some.min()} records of the smallest client. Use less "
            f"than 1 / rows = {1 / some.max():.2g}, for the {some.max()} records of the largest client",
        )
        return
    if target is None or is_open(scenario.client):
        return
    noise = scenario.client.per_example.noise_multiplier
    for release in releases(scenario, federation, noise):
        if not _keeps_target(release, target):
            yield Problem(
                path="client.noise_multiplier",
                message=f"{noise:g} gives {guarantee_of(release)} where a client participates as often as it can. That "
                f"is above privacy.target_epsilon, {target:g}. Write noise_multiplier: null to have it found, or raise "
                "the target",
            )
            return


def releases(scenario: Scenario, federation: Federation, noise: float) -> tuple[Releases, ...]:
    """The largest releases of clients: each pair of rate and number of steps that no other exceeds in both."""
    client = scenario.client
    if not isinstance(client, PrivateAlgorithm):
        return ()
    min_rows, max_rows = sizes(scenario, federation)
    separation = minimum_separation_of(scenario.sampler, scenario.clients)
    participations = -(-scenario.rounds // (separation or 1))
    pairs = {
        (client.rate(low), participations * max(client.num_steps(low), client.num_steps(high)))
        for low, high in set(zip(min_rows.tolist(), max_rows.tolist(), strict=True))
        if low
    }
    front: list[tuple[float, int]] = []
    for rate, count in sorted(pairs, reverse=True):
        if not front or count > front[-1][1]:
            front.append((rate, count))
    front.sort(key=lambda pair: -(pair[0] ** 2) * pair[1])
    return tuple(
        Releases(
            noise_multiplier=noise,
            sampling="poisson",
            rate=rate,
            count=count,
            delta=scenario.privacy.delta,
            unit="record",
            adjacency=record_neighbours(scenario),
        )
        for rate, count in front
    )


def largest_epsilon(scenario: Scenario, federation: Federation) -> float:
    """Epsilon for a record of a client that participates as often as it can; NaN where no client adds such noise."""
    if not isinstance(scenario.client, PrivateAlgorithm):
        return math.nan
    noise = scenario.client.per_example.noise_multiplier
    guarantees = (guarantee_of(release) for release in releases(scenario, federation, noise))
    return max((guarantee.epsilon for guarantee in guarantees), default=math.nan)


def sizes(scenario: Scenario, federation: Federation) -> tuple[IntArray, IntArray]:
    """(N,), (N,) the fewest and the most rows that each client trains on, where it is there."""
    owners = federation.audit.owners
    max_rows = federation.base_sizes + np.bincount(owners[owners >= 0], minlength=federation.num_clients)
    return (max_rows if scenario.exclusion == "replace" else federation.base_sizes), max_rows


def _keeps_target(release: Releases, target: float) -> bool:
    """Whether a guarantee meets a target; the quick accountant is tried first."""
    quick: Accountant = "rdp" if "rdp" in release.accountants else "gaussian"
    return guarantee_of(release, quick).epsilon <= target or guarantee_of(release).epsilon <= target


def require(scenario: Scenario, federation: Federation) -> None:
    """Errors: `ScenarioError` with all `problems`, each with its place."""
    placed_problems = [scenario.place(problem) for problem in problems(scenario, federation)]
    if placed_problems:
        raise ScenarioError(placed_problems)
