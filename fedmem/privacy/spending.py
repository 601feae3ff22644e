"""The privacy spent by a scenario: epsilon after each round, as rows of measurements."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import LABELS, NO_CLIENT, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.needs import Declared, declared_by
from fedmem.contracts.sampler import sampler_declaration
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration
from fedmem.contracts.validation_of_measures import measurements_of
from fedmem.guards.guarding import Guard
from fedmem.privacy.accounting import AccountantBounds, Adjacency, Releases, guarantee_of
from fedmem.privacy.guarantee import Guarantee
from fedmem.privacy.mechanisms import _UPDATES, Mechanism, mechanisms

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

SOURCE = "privacy"
"""The source of rows about what is guaranteed."""


MEASURES = (
    Measure(
        name="epsilon",
        title="epsilon of the guarantee",
        means="A bound on how far one unit changes the odds of any outcome: by e^epsilon, up to delta.",
        is_not="It is not a measurement: attacks may show far less. It says nothing about units other than those in "
        "which its neighbours differ.",
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
    Label("min_separation", "whole", "the rounds between two participations of a client"),
    Label("same_rows", "yes", "the guarantee compares clients with the same number of rows"),
    Label("accountant", "text", "the accountant that gives the epsilon"),
    Label("copies", "whole", "the copies of a record that neighbours differ in"),
)
"""The further labels of these rows."""


def permitted_row(row: Measurement, part: str, guarantee: Guarantee, adjacency: Adjacency, copies: int) -> Measurement:
    """The epsilon and delta behind the bounds of the kind of a row, for the neighbours that random inclusion compares.

    The metric is `epsilon.permitted`. Neighbours differ in one record, which is removed for `add_remove`, and has other
    data for `replace`, with all its copies. The part of the scenario that gives the guarantee is a label.
    """
    delta = float(f"{guarantee.delta:g}")
    labels = Labels.of(part=part, unit="record", adjacency=adjacency, delta=delta, copies=copies)
    subject = row.reading.subject
    reading = Reading(metric=PERMITTED, value=guarantee.epsilon, n=row.reading.n, subject=subject, labels=labels)
    return replace(row, source=SOURCE, reading=reading)


def neighbours(bank: Bank, subjects: IntArray) -> tuple[Adjacency, int]:
    """How the neighbours differ that random inclusion of these examples compares, and in how many copies at most.

    Copies of all examples that are in or out together count.
    """
    adjacency: Adjacency = "add_remove" if bank.exclusion == "remove" else "replace"
    groups = bank.audit.coin_groups
    copies = np.bincount(groups, weights=bank.audit.copies, minlength=1)[groups[subjects]]
    return adjacency, max(1, round(float(copies.max(initial=1))))


PERMITTED = "epsilon.permitted"
"""The epsilon behind the bounds of a kind."""


def checked_rows(rows: Sequence[Measurement], components: Sequence[object]) -> list[Measurement]:
    """The rows of this source, checked like those of components; a `PartError` for undeclared measures or labels.

    A bound belongs to a row of an estimator or a probe and has the labels of that row. So it may have the labels that
    `components` declare, and those of this module.
    """
    measures: dict[str, Measure] = {measure.name: measure for measure in MEASURES}
    labels: dict[str, Label] = {**LABELS, **{label.name: label for label in ROW_LABELS}}
    for component in components:
        declared = declared_by(component)
        measures, labels = {**declared.measures, **measures}, {**declared.labels, **labels}
    with Guard("source", SOURCE, "rows") as guard:
        return measurements_of(guard, rows, Declared(measures, labels))


MEANING = (
    "A guarantee of one run of a simulation: who took part is written down, and the noise is pseudo-random (PCG64) and "
    "follows from the seed. All runs of a folder train on the same base data, and together they guarantee less. "
    "Hyper-parameters that were chosen by results cost privacy that is not counted."
)


def of_scenario(scenario: Scenario) -> tuple[Mechanism, ...]:
    """The mechanisms of a scenario whose guarantee is the same for every client."""
    return mechanisms(
        scenario.strategy, scenario.defences, scenario.sampler, scenario.privacy, scenario.clients, scenario.rounds
    )


def spending_record(scenario: Scenario, bank: Bank, largest_epsilon: float = math.nan) -> dict[str, Any] | None:
    """The manifest's entry: each mechanism with its guarantee after all rounds; None where nothing adds noise.

    Where guarantees differ between clients, the weakest. `largest_epsilon` is that of the records of a client that
    participates as often as it can; NaN where unknown, and not stored where infinite.
    """
    rounds = scenario.rounds
    entries = [
        _guarantee_record(mechanism, guarantee_of(mechanism.releases), rounds) for mechanism in of_scenario(scenario)
    ]
    local = [
        _guarantee_record(mechanism, guarantee_of(mechanism.releases), rounds)
        for mechanism in of_records(scenario, bank, rounds).values()
    ]
    if local:
        weakest = max(local, key=lambda entry: entry["epsilon"])
        entries.append(weakest | ({"largest_epsilon": largest_epsilon} if math.isfinite(largest_epsilon) else {}))
    text = " ".join(filter(None, (MEANING, _large_delta(scenario, bank) if local else "")))
    return {"mechanisms": entries, "says": text} if entries else None


def largest_epsilon_of(manifest: Mapping[str, Any]) -> float:
    """The largest epsilon of records that a manifest has; NaN without."""
    entries = (manifest.get("privacy") or {}).get("mechanisms", ())
    return next((float(entry["largest_epsilon"]) for entry in entries if "largest_epsilon" in entry), math.nan)


def _large_delta(scenario: Scenario, bank: Bank) -> str:
    """A warning where delta is so large that a mechanism may publish a record of some clients."""
    largest: dict[int, int] = {}
    for part in bank.participation:
        largest[part.client] = max(part.num_examples, largest.get(part.client, 0))
    num_unprotected = sum(scenario.privacy.delta * rows >= 1 for rows in largest.values())
    if not num_unprotected:
        return ""
    max_rows = max(largest.values())
    return (
        f"Delta, {scenario.privacy.delta:g}, is not less than one over the rows of {num_unprotected} of "
        f"{len(largest)} clients, to whose records it guarantees little. Choose delta < 1 / {max_rows} = "
        f"{1 / max_rows:.2g} for the largest client."
    )


def epsilon_rows(scenario: Scenario, bank: Bank) -> Iterator[Measurement]:
    """Epsilon after each observed round, and as the summary that of each client where it depends on its participations.

    n counts releases, and for single clients their participations. With amplification by sampling the guarantee is the
    same for all clients. Without it, each client is charged for the rounds in which it participated. Where each run
    draws its own roster, the run with the most participations counts.
    """
    for mechanism in of_scenario(scenario):
        for round_number in scenario.observed_rounds[1:]:
            yield _row(
                round_number,
                NO_CLIENT,
                mechanism,
                guarantee_of(_releases_until(mechanism, scenario.strategy, round_number)),
                round_number,
            )
        if (
            mechanism.releases.sampling in ("everyone", "tree")
            and sampler_declaration(scenario.sampler).law != "everyone"
        ):
            for client, participation_count in sorted(participations(bank, scenario.rounds).items()):
                guarantee = guarantee_of(
                    _releases_until(mechanism, scenario.strategy, scenario.rounds, participation_count)
                )
                yield _row(None, client, mechanism, guarantee, participation_count)
    for client, mechanism in of_records(scenario, bank, scenario.rounds).items():
        yield _row(None, client, mechanism, guarantee_of(mechanism.releases), mechanism.releases.count)
    for round_number in scenario.observed_rounds[1:]:
        guarantees = [
            (mechanism, guarantee_of(mechanism.releases))
            for mechanism in of_records(scenario, bank, round_number).values()
        ]
        if guarantees:
            worst, its = max(guarantees, key=lambda pair: pair[1].epsilon)
            yield _row(round_number, NO_CLIENT, worst, its, worst.releases.count)


def _releases_until(
    mechanism: Mechanism, strategy: StrategyMaker, rounds: int, participation_count: int | None = None
) -> Releases:
    """The releases of `rounds` rounds with `participation_count` participations, or else as many as are possible."""
    squared_sensitivity = strategy_declaration(strategy).squared_sensitivity
    if mechanism.min_separation is not None and squared_sensitivity is not None:
        return replace(
            mechanism.releases,
            count=squared_sensitivity(rounds, mechanism.min_separation, participation_count),
        )
    return replace(mechanism.releases, count=rounds if participation_count is None else participation_count)


def of_records(scenario: Scenario, bank: Bank, until: int) -> dict[int, Mechanism]:
    """The guarantee of each client for its records by its noisy steps up to a round; empty where there are none.

    An adversary that sees every message of a client knows when it participates, so sampling gives no amplification.
    Where its rows differ between runs or rounds it is taken to have had the fewest of them, with the most steps.
    """
    if not isinstance(scenario.client, PrivateAlgorithm):
        return {}
    how, by_client = scenario.client.per_example, {}
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
        by_client[client] = Mechanism(
            part="client",
            against=_UPDATES,
            clip=f"{how.clip:g}",
            releases=releases,
            covers="the values of the updates, between clients with the same number of rows; not reported losses",
            same_rows=True,
        )
    return by_client


def record_neighbours(scenario: Scenario) -> Adjacency:
    """The adjacency of the guarantee to records: `zero_out` by default, since rate and steps depend on the rows."""
    return scenario.privacy.adjacency or "zero_out"


def participations(bank: Bank, until: int) -> Mapping[int, int]:
    """In how many rounds each client took part up to one, in the run in which it did most often."""
    counts = Counter((part.run, part.client) for part in bank.participation if part.round <= until)
    max_rounds: dict[int, int] = {}
    for (_, client), count in counts.items():
        max_rounds[client] = max(count, max_rounds.get(client, 0))
    return max_rounds


def _row(
    round_number: int | None, client: int, mechanism: Mechanism, guarantee: AccountantBounds, count: int
) -> Measurement:
    releases = guarantee.releases
    is_amplified = mechanism.min_separation is None and releases.sampling != "everyone"
    labels = Labels.of(
        part=mechanism.part,
        unit=releases.unit,
        adjacency=releases.adjacency,
        sampling=releases.sampling,
        rate=float(f"{releases.rate:.4g}") if is_amplified else None,
        min_separation=mechanism.min_separation,
        same_rows=True if mechanism.same_rows and releases.unit == "client" else None,
        delta=float(f"{releases.delta:g}"),
        accountant=guarantee.accountant,
    )
    reading = Reading(metric="epsilon", value=guarantee.epsilon, n=count, labels=labels)
    level: Level = "global" if mechanism.part == "strategy" else "local"
    return Measurement(run=None, round=round_number, level=level, client=client, source=SOURCE, reading=reading)


def _guarantee_record(mechanism: Mechanism, guarantee: AccountantBounds, rounds: int) -> dict[str, Any]:
    releases = mechanism.releases
    return {
        "part": mechanism.part,
        "against": mechanism.against,
        "covers": mechanism.covers,
        "same_rows": mechanism.same_rows,
        "unit": releases.unit,
        "adjacency": releases.adjacency,
        "sampling": releases.sampling,
        "rate": releases.rate,
        "releases": rounds if releases.sampling == "tree" else releases.count,
        "min_separation": mechanism.min_separation,
        "clip": mechanism.clip,
        "noise_multiplier": releases.noise_multiplier,
        "delta": releases.delta,
        "epsilon": guarantee.epsilon,
        "accountant": guarantee.accountant,
        "bounds": dict(guarantee.bounds),
    }
