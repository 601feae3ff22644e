"""The largest share of rows that any adversary identifies under the guarantee of a scenario."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measurement import Level, Measurement
from fedmem.contracts.needs import measures_of
from fedmem.privacy.accounting import Releases
from fedmem.privacy.loss_profiles import composed_profile, profile
from fedmem.privacy.mechanisms import Mechanism
from fedmem.privacy.reconstruction_bound import gaussian_success, success_from_profile
from fedmem.privacy.spending import SOURCE, of_records, of_scenario, participations

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

BOUND = "identified"
"""The word by which a measure declares this bound (`Measure.bound`)."""


def identification_bounds(scenario: Scenario, bank: Bank, rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """`<metric>.bound` beside each share of runs whose unknown row of the client `victim` is identified.

    All runs have the same rows but for one, so that the output Q without any contribution of it is a neighbour of each.
    The share is at most T(prior), where T(x) is the largest true positive rate against Q at the false positive rate x
    (`fedmem.privacy.reconstruction_bound`). The prior is the largest share of runs that have one candidate. The bound
    is that of everything released up to the round of the row, or up to the last round.

    - for n steps with noise of z clips, and c copies of the row, T(x) = Φ(Φ⁻¹(x) + c √n / z). Without amplification
      by sampling, it holds for known batches too;
    - where each run draws its own batches, and with one copy, the composed privacy profile may give a smaller bound;
    - noise of the server is counted for level `global` only, and noise of clients for both levels. The smallest bound
      counts.

    There is none without noise, and none where candidates differ in copies or rounds. There is none either where a run
    has no usable model, since which run that is may depend on the row.
    """
    names = {measure.name for part in scenario.estimators for measure in measures_of(part) if measure.bound == BOUND}
    for row in rows if scenario.central is None else ():
        reading = row.reading
        if reading.metric not in names:
            continue
        victim = int(reading.labels.number("victim"))
        prior = prior_of(bank.audit, victim)
        if prior is None or reading.n < len(bank.audit.is_in):
            continue
        until = scenario.rounds if row.round is None else row.round
        largest = largest_share(scenario, bank, victim, row.level, until, prior)
        if largest is not None:
            bound = replace(reading, metric=f"{reading.metric}.bound", value=largest, low=math.nan, high=math.nan)
            yield replace(row, source=SOURCE, reading=bound)


def prior_of(audit: AuditSet, victim: int) -> float | None:
    """The largest share of runs that have one candidate; None where candidates differ in copies or rounds."""
    rows = np.flatnonzero(audit.owner == victim)
    facts = np.stack([audit.copies[rows], audit.start[rows], audit.stop[rows]])
    if not len(rows) or (facts != facts[:, :1]).any():
        return None
    return float(audit.is_in[:, rows].mean(axis=0).max())


def largest_share(scenario: Scenario, bank: Bank, victim: int, level: Level, until: int, prior: float) -> float | None:
    """The smallest bound of all parts that add noise; None where none protects models of this level.

    Args:
        scenario: The scenario of the bank.
        bank: Its participation, batches and copies.
        victim: The client whose row is unknown.
        level: Whose models are read: messages of clients (`local`) or aggregates (`global`).
        until: The last round that is read.
        prior: The largest probability of a candidate.
    """
    copies = int(bank.audit.copies[bank.audit.owner == victim].max())
    count = participations(bank, until).get(victim, 0)
    shares = []
    for mechanism in of_scenario(scenario):
        released = mechanism.releases
        if released.noise_multiplier > 0 and (level == "global" or mechanism.part == "defences"):
            number = released.count if released.sampling == "tree" else count
            shares.append(_share(prior, released.noise_multiplier, number))
    if isinstance(scenario.client, PrivateAlgorithm) and scenario.client.per_example.noise_multiplier > 0:
        of_victim = of_records(scenario, bank, until).get(victim)
        # without a round so far, the victim has released nothing
        shares.append(prior if of_victim is None else _share_of_records(scenario, of_victim, copies, prior))
    return min(shares, default=None)


def _share_of_records(scenario: Scenario, mechanism: Mechanism, copies: int, prior: float) -> float:
    """Of the steps of a client; with unknown batches the smaller of two bounds."""
    released = mechanism.releases
    share = _share(prior, released.noise_multiplier / copies, released.count)
    is_sampled = scenario.batches == "per_run" and released.rate < 1 and copies == 1
    return min(share, _sampled_share(prior, released)) if is_sampled else share


def _share(prior: float, noise: float, count: int) -> float:
    """Of so many sums with noise of so many clips, to which the row contributes."""
    return gaussian_success(prior, math.sqrt(count) / noise)


@cache
def _sampled_share(prior: float, released: Releases) -> float:
    """Of sums to which the row contributes with a probability that is not known to the adversary."""
    one = profile("poisson", released.noise_multiplier, released.rate)
    whole = composed_profile(one, released.count)
    return success_from_profile(prior, whole.forward, whole.backward)
