"""Level `sum`: what secure aggregation lets a server see, the sum of the models that several clients sent.

Owning clients of audit examples come first in a sum, and probes choose their victims in the same order. So a client
that is attacked alone is in the sums as well. No estimator reads sums, so no evidence of them is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import NO_CLIENT, Measurement, Reading
from fedmem.seeding import Streams


def in_order(seed: int, run: int, round_number: int, clients: Sequence[int], audit: AuditSet) -> IntArray:
    """The clients of a cohort in the order in which sums take them, the first s of them for a sum of s.

    Owners of audit examples that are trained on in this round come first, so that a sum shows examples wherever
    possible. Within both groups the order is random. Guarantees:

    - the owner of an example is settled before any coin falls, so the order does not depend on coins;
    - each client has a draw of its own, so the order of two clients does not depend on which other clients take part.

    >>> from fedmem.contracts.data import Examples
    >>> nobody = Examples(inputs=np.zeros((0, 1), np.float32), targets=np.zeros(0, np.int64), ids=np.zeros(0, np.int64))
    >>> none = np.zeros(0, np.int32)
    >>> audit = AuditSet(
    ...     examples=nobody, kind=none.astype(str), role=none.astype(str), owner=none, copies=none,
    ...     is_in=np.zeros((2, 0), bool),
    ... )
    >>> every = in_order(0, 0, 1, [2, 5, 7, 9], audit)
    >>> some = in_order(0, 0, 1, [2, 7, 9], audit)
    >>> every[every != 5].tolist() == some.tolist()
    True
    """
    present = np.array(sorted(clients), dtype=np.int64)
    streams = Streams(seed, "sums").generators(
        run=[run] * len(present), round_number=round_number, client=present.tolist()
    )
    draws = np.array([rng.random() for rng in streams])
    holds = audit.holds(present)[:, audit.is_active(round_number)].any(axis=1)
    return present[np.lexsort((draws, ~holds))]


def sums_of(
    transitions: Sequence[Transition], sizes: Sequence[int], weighting: str, seed: int, audit: AuditSet
) -> list[Transition]:
    """One sum of each size for every run, from its local transitions of one round, in the order of runs and sizes.

    A sum of s clients is `sum_k w_k sent_k / sum_k w_k` over the first s `in_order`, so that larger sums hold the
    clients of the smaller ones. The weight `w_k` is the number of the client's examples with `weighting` size, else 1.
    It is added up in float64 in the order of the clients and has the dtypes of what was sent. Cohorts of fewer than s
    have none.
    """
    sums = []
    for run in sorted({transition.run for transition in transitions}):
        by_client = {transition.client: transition for transition in transitions if transition.run == run}
        round_number = next(iter(by_client.values())).round
        order = in_order(seed, run, round_number, list(by_client), audit).tolist()
        for size in sorted(size for size in sizes if size <= len(order)):
            members = [by_client[client] for client in sorted(order[:size])]
            sums.append(sum_of(members, weighting))
    return sums


def sum_of(members: Sequence[Transition], weighting: str) -> Transition:
    """One sum of these clients; their sizes may all be 0, and then they count alike."""
    sizes = [member.num_examples for member in members]
    weights = np.array(sizes if weighting == "size" and any(sizes) else [1] * len(sizes), dtype=np.float64)

    def mean(read: Callable[[Transition], Params]) -> Params:
        parts = [read(member) for member in members]
        shares = (weights / weights.sum()).tolist()
        return {
            name: sum(share * part[name].double() for share, part in zip(shares, parts, strict=True)).to(value.dtype)
            for name, value in parts[0].items()
        }

    first, together = members[0], mean(lambda member: member.sent)
    return replace(
        first,
        level="sum",
        client=NO_CLIENT,
        clients=tuple(member.client for member in members),
        sent=together,
        kept=together,
        num_examples=sum(sizes),
        report={},
    )


def label_size(reading: Reading, transition: Transition) -> Reading:
    """A reading with the number of clients as a label if it is about a sum, so that no probe has to give it."""
    if transition.level != "sum":
        return reading
    return replace(reading, labels=reading.labels.plus(clients=len(transition.clients)))


def by_size(measurements: Sequence[Measurement]) -> Iterator[tuple[int | None, list[Measurement]]]:
    """Measurements of sums of one size apart, without the label of the size, and all of other levels together."""
    groups: dict[int | None, list[Measurement]] = {}
    for measurement in measurements:
        labels = measurement.reading.labels
        size = labels.integer("clients") if measurement.level == "sum" and "clients" in labels else None
        unlabelled = (
            measurement
            if size is None
            else replace(measurement, reading=replace(measurement.reading, labels=labels.without("clients")))
        )
        groups.setdefault(size, []).append(unlabelled)
    yield from groups.items()


def with_size(measurement: Measurement, size: int | None) -> Measurement:
    """A summary of sums of one size with the label of the size."""
    if size is None:
        return measurement
    labels = measurement.reading.labels.plus(clients=size)
    return replace(measurement, reading=replace(measurement.reading, labels=labels))
