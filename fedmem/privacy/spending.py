"""What a scenario spends of its guarantee: epsilon after each round, as rows of measurements."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import EVERYWHERE, FINAL, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.sampler import sampler_declaration
from fedmem.privacy.accounting import Adjacency, Promise, Releases, promise
from fedmem.privacy.mechanisms import _UPDATES, Mechanism, mechanisms

SOURCE = "privacy"
"""The source of rows about what is promised."""


MEASURES = (
    Measure(
        name="epsilon",
        title="epsilon of the guarantee",
        means="A bound on how far one unit changes the odds of any outcome: by e^epsilon, but for delta.",
        is_not="It is not what was measured: attacks may show far less. It says nothing about units other than those "
        "that its neighbours differ in.",
        unit="nats",
        range=(0.0, math.inf),
        section="privacy",
        terms=(
            ("epsilon", "bound on how far one unit changes the odds of any outcome: by e^epsilon, but for delta"),
            ("add_remove", "neighbours: with the unit and without it"),
            ("zero_out", "neighbours: the unit contributes nothing, and its place stays empty"),
            ("client, replace", "neighbours: another client's data in the place of the client's"),
        ),
        order=8,
    ),
)
"""The measures of the rows that this module writes."""


ROW_LABELS = (
    Label("sampling", "text", "how clients or records are sampled"),
    Label("rate", "number", "the sampling rate that amplifies the guarantee"),
    Label("pause", "whole", "the rounds between two participations of a client"),
    Label("same_rows", "yes", "the guarantee compares clients with the same number of rows"),
    Label("accountant", "text", "the accountant that gives the epsilon"),
)
"""The further labels of these rows."""


SAYS = (
    "A guarantee of one run of a simulation: who took part is written down, and the noise is pseudo-random (PCG64) and "
    "follows from the seed. All runs of a folder train on the same base data, and together they guarantee less. "
    "Hyper-parameters that were chosen by results cost privacy that is not counted."
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
        if one.releases.sampling in ("everyone", "tree") and sampler_declaration(scenario.sampler).law != "everyone":
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
    credited = one.pause is None and releases.sampling != "everyone"
    labels = Labels.of(
        part=one.part,
        unit=releases.unit,
        adjacency=releases.adjacency,
        sampling=releases.sampling,
        rate=float(f"{releases.rate:.4g}") if credited else None,
        pause=one.pause,
        same_rows=True if one.same_rows and releases.unit == "client" else None,
        delta=float(f"{releases.delta:g}"),
        accountant=given.accountant,
    )
    reading = Reading(metric="epsilon", value=given.epsilon, n=count, labels=labels)
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
