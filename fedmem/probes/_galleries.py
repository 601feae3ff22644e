"""Against what a reconstruction is held: examples that a victim could be taken for.

A victim must be exchangeable with its peers. Among reference data alone, plain noise "identified" two thirds of the
examples of `out_of_distribution`, which reference data do not resemble.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.probe import Context
from fedmem.modalities.modality import Rows
from fedmem.probes._cases import Case


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Images (G, *shape), or texts, none of which is behind the update; the first `peers` of them are like the victim.

    Take an example that is exchangeable with its peers. Without any leakage it is identified with a chance of at most 1
    / (peers + 1), and of exactly that where all are peers.
    """

    images: Rows
    peers: int


def gallery(kind: str, role: str, case: Case, max_size: int, context: Context) -> Gallery:
    """The images among which an example of this kind is sought in this case; empty where it has no peers.

    Canaries are sought among the fresh references of their family, exactly their peers. Other examples are sought
    among real images: the population, the test set and rows of other clients, up to `max_size` in all. These are
    roughly the peers of typical examples. For every other kind the peers are the examples of the same kind that other
    clients hold, and they come first. Real images are no peers where clients see them differently. The gallery depends
    on no coin of the case.
    """
    federation = context.federation
    audit, store, rows = federation.audit, federation.store, federation.modality.comparison_rows
    nobody = Gallery(images=rows(store.inputs[:0], store.targets[:0]), peers=0)
    for references in federation.references:
        if references.family == kind:
            return Gallery(images=rows(references.inputs, references.targets), peers=len(references.inputs))
    if federation.shifted:
        return nobody
    others = np.flatnonzero((audit.kind == kind) & ~audit.holds(case.clients).any(axis=0))
    same = audit.examples.take((others if role != "typical" else others[:0])[:max_size])
    if role != "typical" and not len(same):
        return nobody
    fresh = Examples.concatenate([federation.population, federation.test])
    room = max(0, max_size - len(same))
    rest = store.take(_rows_of_others(case, room - len(fresh), context))
    pool = Examples.concatenate([same, fresh.take(np.arange(min(room, len(fresh)))), rest])
    images = rows(pool.inputs, pool.targets)
    return Gallery(images=images, peers=len(images) if role == "typical" else len(same))


def _rows_of_others(case: Case, count: int, context: Context) -> IntArray:
    """Random base rows that are in no batch of the case, without those of the case's own clients."""
    federation, place = context.federation, case.transition
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    cohort_rows = np.concatenate([np.empty(0, dtype=np.int64), *(federation.base[client] for client in case.clients)])
    rows = np.setdiff1d(np.arange(federation.audit_start), cohort_rows)
    rng = context.stream(f"leakage gallery {case.name}", run=place.run, round_number=place.round, client=place.client)
    return rows if len(rows) <= count else np.sort(rng.choice(rows, count, replace=False))
