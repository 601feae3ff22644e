"""What the parts of a scenario promise about privacy: whom, against whom, at which epsilon.

Promises are about this simulation: they hold for an adversary who does not know who took part, while a testbed writes
that down, and for noise that nobody can foresee, while here it follows from the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.evidence import Bank
from fedmem.contracts.families import kind_of
from fedmem.contracts.measurement import EVERYWHERE, FINAL, Level, Measurement, Reading
from fedmem.errors import ComponentError, Problem
from fedmem.privacy.accounting import Adjacency, Promise, Releases, noise_for, promise
from fedmem.privacy.amplification import credited, expected
from fedmem.privacy.coverage import reads_sizes, uncovered_by_server

SOURCE = "privacy"
"""The source of rows about what is promised."""

_UNAIMED = (
    "null means that it is found for an epsilon, but privacy.target_epsilon is not given; write, for instance, "
    "privacy: {target_epsilon: 8}, or a number here"
)

SAYS = (
    "A guarantee of one run of a simulation: who took part is written down, and the noise is pseudo-random (PCG64) and "
    "follows from the seed. All runs of a folder train on the same base data, and together they guarantee less. "
    "Hyper-parameters that were chosen by results cost privacy that is not counted."
)


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """One part of a scenario that adds noise: what it releases, and from whom that protects.

    `pause` is by how many rounds the turns of a client are apart, where the promise counts on that. `covers` says which
    values the guarantee is about. With `same_rows` it holds only between neighbours with the same number of rows, since
    that number is used exactly.
    """

    part: str
    against: str
    clip: str
    releases: Releases
    covers: str
    pause: int | None = None
    same_rows: bool = False


def mechanisms(
    strategy: Any, defences: Sequence[Any], sampler: Any, privacy: Any, clients: int, rounds: int
) -> tuple[Mechanism, ...]:
    """Every noisy part, with what it has released after all rounds.

    Errors: `ComponentError` where cohorts or the strategy depend on data that no noise covers, and for neighbours that
    the sampling does not allow.
    """
    found = []
    if adds_noise(strategy):
        if exact := uncovered_by_server(strategy):
            raise ComponentError(
                "strategy",
                f"{kind_of(strategy)} reads {exact}, which its noise does not cover, so that there is no guarantee; "
                "use dp_fedavg, dp_adaptive or dp_ftrl, or declare on the class what it reads of clients "
                "(reads: ClassVar[tuple[str, ...]]) and which of that its noise covers (noise_covers)",
            )
        given = credited(strategy, sampler, clients)
        adjacency = privacy.adjacency or given.adjacency
        if adjacency == "add_remove" != given.adjacency:
            others = "everyone" if given.pause is not None else "poisson or everyone"
            raise ComponentError(
                "privacy.adjacency",
                f"add_remove with {kind_of(sampler)} is not defined: one client more would change whose turn it is; "
                f"use zero_out or replace, or the sampler {others}",
            )
        releases = Releases(
            noise_multiplier=strategy.noise_multiplier,
            sampling=given.sampling,
            rate=given.rate,
            count=rounds if given.pause is None else strategy.moved(rounds, given.pause),
            delta=privacy.delta,
            unit="client",
            adjacency=adjacency,
        )
        clip = getattr(strategy, "clip", None)
        found.append(
            Mechanism(
                part="strategy",
                against="the server's models",
                clip="adaptive" if clip is None else f"{clip:g}",
                releases=releases,
                covers="the models that the server sends, of all rounds; not what single clients send",
                pause=given.pause,
            )
        )
    found += noise_at_clients(defences, privacy, rounds, reads_sizes(strategy, sampler))
    return tuple(found)


def adds_noise(strategy: Any) -> bool:
    """Whether a strategy promises privacy; how much noise it adds may still have to be found."""
    return bool(getattr(strategy, "noisy", False))


def settled(strategy: Any, sampler: Any, privacy: Any, clients: int, rounds: int) -> Any:
    """The strategy with the noise that meets `privacy.target_epsilon`, or as it is without a target.

    Errors: `ComponentError` where it has noise already, and that does not meet the target.
    """
    target = privacy.target_epsilon
    if target is None or not adds_noise(strategy):
        return strategy
    if strategy.noise_multiplier is None:
        bare = replace(strategy, noise_multiplier=0.0)
        (found,) = mechanisms(bare, (), sampler, privacy, clients, rounds)
        wanted = noise_of(target, found.releases)
        try:
            return replace(strategy, noise_multiplier=wanted)
        except ValueError as error:
            raise ComponentError(
                "strategy", f"privacy.target_epsilon {target:g} takes a noise_multiplier of {wanted:g}: {error}"
            ) from error
    (found,) = mechanisms(strategy, (), sampler, privacy, clients, rounds)
    given = promise(found.releases)
    if given.epsilon > target:
        raise ComponentError(
            "strategy.noise_multiplier",
            f"{strategy.noise_multiplier:g} gives {given}, above privacy.target_epsilon, {target:g}; write "
            "noise_multiplier: null to have it found, or raise the target",
        )
    return strategy


@cache
def noise_of(target: float, releases: Releases) -> float:
    """The noise multiplier for a target."""
    # rounded up, so that a file shows few digits; the promise only gets better
    return -(-noise_for(target, releases) * 10**6 // 1) / 10**6


def problems(
    strategy: Any,
    client: Any,
    defences: Sequence[Any],
    sampler: Any,
    privacy: Any,
    clients: int,
    rounds: int,
    cohort: str,
) -> Iterator[Problem]:
    """What is wrong with the privacy of a scenario."""
    chosen = isinstance(client, PrivateAlgorithm) and hasattr(client, "noise_multiplier")
    if chosen and client.noise_multiplier is None and privacy.target_epsilon is None:
        yield Problem(path="client.noise_multiplier", message=_UNAIMED)
    if not adds_noise(strategy):
        if privacy.target_epsilon is not None and not chosen:
            yield Problem(
                path="privacy.target_epsilon",
                message=f"strategy {kind_of(strategy)} adds no noise that could be chosen for it; use dp_fedavg, "
                "dp_adaptive or dp_ftrl, or client dp_sgd, or leave target_epsilon out",
            )
        if privacy.adjacency is not None and not isinstance(client, PrivateAlgorithm):
            yield Problem(
                path="privacy.adjacency",
                message=f"strategy {kind_of(strategy)} adds no noise, so there is nothing to promise to neighbours; "
                "use dp_fedavg, dp_adaptive or dp_ftrl, or leave adjacency out",
            )
        return
    if strategy.noise_multiplier is None and privacy.target_epsilon is None:
        yield Problem(path="strategy.noise_multiplier", message=_UNAIMED)
        return
    if cohort == "strategy":
        yield Problem(
            path="cohort",
            message=f"how strategy {kind_of(strategy)} would pick clients is not known, so nothing can be promised; "
            "use cohort: sampler",
        )
    if privacy.delta >= 1 / clients:
        yield large_delta(privacy.delta, clients)
    wanted = expected(strategy, sampler, clients)
    if wanted is not None and getattr(strategy, "cap", None) is None and abs(strategy.cohort / wanted - 1) > 0.01:
        yield Problem(
            path="strategy.cohort",
            message=f"sums are divided by {strategy.cohort:g}, but {wanted:g} clients are expected in a round; "
            f"write cohort: {wanted:g}",
        )
    try:
        settled(strategy, sampler, privacy, clients, rounds)
        mechanisms(replace(strategy, noise_multiplier=0.0), defences, sampler, privacy, clients, rounds)
    except ComponentError as error:
        yield Problem(path=error.path, message=error.message)


def large_delta(delta: float, clients: int) -> Problem:
    """What is wrong with a delta that is not below one over the number of clients."""
    return Problem(
        path="privacy.delta",
        message=f"{delta:g} allows giving one of {clients} clients away altogether; use less than 1/{clients}",
    )


def of_scenario(scenario: Any) -> tuple[Mechanism, ...]:
    """The mechanisms of a scenario that promise the same to every client."""
    return mechanisms(
        scenario.strategy, scenario.defences, scenario.sampler, scenario.privacy, scenario.clients, scenario.rounds
    )


def spent(scenario: Any, bank: Bank) -> dict[str, Any] | None:
    """What the manifest says: each mechanism with its promise after all rounds; None where nothing adds noise.

    Of what promises something else to each client, the worst.
    """
    rounds = scenario.rounds
    found = [_told(one, promise(one.releases), rounds) for one in of_scenario(scenario)]
    local = [_told(one, promise(one.releases), rounds) for one in of_records(scenario, bank, rounds).values()]
    if local:
        found.append(max(local, key=lambda told: told["epsilon"]))
    says = " ".join(filter(None, (SAYS, _large_delta(scenario, bank) if local else "")))
    return {"mechanisms": found, "says": says} if found else None


def _large_delta(scenario: Any, bank: Bank) -> str:
    """A warning where delta allows giving a record of some clients away altogether."""
    largest: dict[int, int] = {}
    for part in bank.participation:
        largest[part.client] = max(part.num_examples, largest.get(part.client, 0))
    given = sum(scenario.privacy.delta * rows >= 1 for rows in largest.values())
    if not given:
        return ""
    most = max(largest.values())
    return (
        f"Delta, {scenario.privacy.delta:g}, is not less than one over the rows of {given} of {len(largest)} clients, "
        f"to whose records it promises little; the largest asks for less than 1 / {most} = {1 / most:.2g}."
    )


def measured(scenario: Any, bank: Bank) -> Iterator[Measurement]:
    """Epsilon after each observed round, and at FINAL of each client where it hangs on how often that took part.

    n counts releases, and of single clients their turns. Where clients are drawn, the promise is the same for all.
    Where there is no credit for being drawn, each client has that of the rounds in which it took part, who they are
    being no secret then; with a roster of its own in each run, those of the run with the most.
    """
    for one in of_scenario(scenario):
        for round in scenario.observed_rounds[1:]:
            yield _row(round, EVERYWHERE, one, promise(_until(one, scenario.strategy, round)), round)
        if one.releases.sampling in ("everyone", "tree") and kind_of(scenario.sampler) != "everyone":
            for client, turns in sorted(participations(bank, scenario.rounds).items()):
                own = promise(_until(one, scenario.strategy, scenario.rounds, turns))
                yield _row(FINAL, client, one, own, turns)
    for client, one in of_records(scenario, bank, scenario.rounds).items():
        yield _row(FINAL, client, one, promise(one.releases), one.releases.count)
    for round in scenario.observed_rounds[1:]:
        given = [(one, promise(one.releases)) for one in of_records(scenario, bank, round).values()]
        if given:
            worst, its = max(given, key=lambda pair: pair[1].epsilon)
            yield _row(round, EVERYWHERE, worst, its, worst.releases.count)


def _until(one: Mechanism, strategy: Any, rounds: int, turns: int | None = None) -> Releases:
    """What is released in so many rounds, in which a client takes part so often, or else as often as it can."""
    if one.pause is not None:
        return replace(one.releases, count=strategy.moved(rounds, one.pause, turns))
    return replace(one.releases, count=rounds if turns is None else turns)


def of_records(scenario: Any, bank: Bank, until: int) -> dict[int, Mechanism]:
    """What each client has promised to its records by its noisy steps up to a round; empty where there are none.

    Somebody who sees every message of a client knows when it takes part, so that there is no credit for being picked.
    Where its rows differ between runs or rounds it is taken to have had the fewest of them, with the most steps.
    """
    if not isinstance(scenario.client, PrivateAlgorithm):
        return {}
    how, found = scenario.client.per_example, {}
    sizes: dict[int, list[int]] = {}
    for part in bank.participation:
        if part.round <= until and part.num_examples:
            sizes.setdefault(part.client, []).append(part.num_examples)
    rounds = participations(bank, until)
    for client, rows in sorted(sizes.items()):
        releases = Releases(
            noise_multiplier=how.noise_multiplier,
            sampling="poisson",
            rate=scenario.client.rate(min(rows)),
            count=rounds[client] * max(scenario.client.num_steps(size) for size in set(rows)),
            delta=scenario.privacy.delta,
            unit="record",
            adjacency=record_neighbours(scenario),
        )
        found[client] = Mechanism(
            part="client",
            against=_UPDATES,
            clip=f"{how.clip:g}",
            releases=releases,
            covers="the values of the updates, between clients with the same number of rows; not reported losses",
            same_rows=True,
        )
    return found


def record_neighbours(scenario: Any) -> Adjacency:
    """The adjacency of the guarantee to records: `zero_out` by default, since rate and steps depend on the rows."""
    return scenario.privacy.adjacency or "zero_out"


def participations(bank: Bank, until: int) -> Mapping[int, int]:
    """In how many rounds each client took part up to one, in the run in which it did most often."""
    counts = Counter((part.run, part.client) for part in bank.participation if part.round <= until)
    most: dict[int, int] = {}
    for (_, client), count in counts.items():
        most[client] = max(count, most.get(client, 0))
    return most


def _row(round: int, client: int, one: Mechanism, given: Promise, count: int) -> Measurement:
    releases = given.releases
    rate = "" if releases.sampling == "everyone" else f"rate={releases.rate:.4g}"
    rate = rate if one.pause is None else f"pause={one.pause}"
    same = "same_rows" if one.same_rows and releases.unit == "client" else ""
    words = (one.part, releases.unit, releases.adjacency, releases.sampling, rate, same, f"delta={releases.delta:g}")
    setting = ",".join(filter(None, (*words, given.accountant)))
    reading = Reading(metric="epsilon", value=given.epsilon, n=count, setting=setting)
    level: Level = "global" if one.part == "strategy" else "local"
    return Measurement(run=EVERYWHERE, round=round, level=level, client=client, source=SOURCE, reading=reading)


def _told(one: Mechanism, given: Promise, rounds: int) -> dict[str, Any]:
    releases = one.releases
    return {
        "part": one.part,
        "against": one.against,
        "covers": one.covers,
        "same_rows": one.same_rows,
        "unit": releases.unit,
        "adjacency": releases.adjacency,
        "sampling": releases.sampling,
        "rate": releases.rate,
        "releases": rounds if releases.sampling == "tree" else releases.count,
        "pause": one.pause,
        "clip": one.clip,
        "noise_multiplier": releases.noise_multiplier,
        "delta": releases.delta,
        "epsilon": given.epsilon,
        "accountant": given.accountant,
        "bounds": dict(given.bounds),
    }


_UPDATES = "the updates that clients send"


def noise_at_clients(defences: Sequence[Any], privacy: Any, rounds: int, sizes: str) -> Iterator[Mechanism]:
    """Noise that clients add themselves, right after a clip: whatever comes after it uses what is noisy already.

    `sizes` names the components that use exact numbers of rows.
    """
    covers = "the values of the updates"
    covers += f", between clients with the same number of rows, because {sizes} reads that number" if sizes else ""
    bound: float | None = None
    for defence in defences:
        kind = kind_of(defence)
        if kind == "noise" and bound is not None:
            releases = Releases(
                noise_multiplier=defence.multiplier * defence.norm / bound,
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
        # what a defence other than clip does to the length is not known
        bound = float(defence.norm) if kind == "clip" else None
