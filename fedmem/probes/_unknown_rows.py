"""The places of audit examples in a client's batches, and the rows that an informed adversary puts there instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import NO_CLIENT
from fedmem.contracts.probe import Context


@dataclass(frozen=True)
class UnknownRow:
    """The rows of the store at the places of an audit example: its own, or its replacement rows where it is out."""

    subject: int
    rows: tuple[int, ...]
    is_in: bool


def unknown_rows_of(federation: Federation, run: int, client: int, round_number: int) -> dict[int, UnknownRow]:
    """The places of all audit examples at a client; outside of its window an example has none, in or out."""
    audit = federation.audit
    rows: dict[int, set[int]] = {}
    for copy in np.flatnonzero(audit.owners == client).tolist():
        subject = int(audit.subject[copy])
        is_in = bool(audit.is_in[run, subject])
        if not audit.is_active(round_number)[subject]:
            continue
        row = int(federation.trained_rows[copy] if is_in else federation.replacement[run, copy])
        if row >= 0:
            rows.setdefault(subject, set()).add(row)
    return {
        subject: UnknownRow(subject, tuple(sorted(some)), bool(audit.is_in[run, subject]))
        for subject, some in rows.items()
    }


def draw_unknown_rows(sender: Transition, limit: int, context: Context) -> list[UnknownRow]:
    """The places with a row in one of the client's batches, at most `limit`; the draw does not depend on coins."""
    unknown_rows = unknown_rows_of(context.federation, sender.run, sender.client, sender.round)
    used = context.used_rows(sender.run, sender.client, sender.round)
    subjects = sorted(subject for subject, unknown in unknown_rows.items() if np.isin(unknown.rows, used).any())
    rng = context.stream("informed", run=sender.run, round_number=sender.round, client=sender.client)
    return [unknown_rows[subject] for subject in sorted(rng.permutation(subjects)[:limit].tolist())]


def draw_senders(
    transition: Transition, transitions: Sequence[Transition], limit: int, context: Context
) -> list[Transition]:
    """The clients that are attacked from a model, at most `limit` of those of the cohort that hold audit examples.

    They are the same at both levels. `transitions` are those shown together with this one.
    """
    cohort = (
        [local for local in transitions if local.run == transition.run]
        if transition.level == "local"
        else context.senders(transition)
    )
    owners = set(context.federation.audit.owners.tolist())
    owning_clients = sorted(sender.client for sender in cohort if sender.client in owners)
    rng = context.stream("informed clients", run=transition.run, round_number=transition.round)
    chosen = set(rng.permutation(owning_clients)[:limit].tolist())
    if transition.level == "local":
        return [transition] if transition.client in chosen else []
    # an aggregate that its owner completes is read for this owner alone
    return [sender for sender in cohort if sender.client in chosen and transition.client in (NO_CLIENT, sender.client)]


def candidate_rows(
    sender: Transition, unknown: UnknownRow, limit: int, context: Context, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """The candidates for a place, at most `limit`, the true row first; and other rows with its label.

    Candidates of a `typical` example are rows of other clients with its label. Those of another kind are the examples
    of that kind at other clients. Where clients see real rows in their own way, a typical example has no other
    candidate. The other rows are those of other clients, in random order, without candidates and without rows that the
    client trains on.
    """
    federation = context.federation
    audit, targets = federation.audit, federation.store.targets
    own_row = int(federation.trained_rows[audit.subject == unknown.subject][0])
    bases = [base for client, base in enumerate(federation.base) if client != sender.client]
    others = np.concatenate([np.empty(0, dtype=np.int64), *bases])
    trained = context.rows(sender.run, sender.client, sender.round)
    others = rng.permutation(np.setdiff1d(others[targets[others] == targets[own_row]], trained))
    if audit.role[unknown.subject] == "typical":
        peers = others[: 0 if federation.shifted else limit - 1]
    else:
        is_peer = (audit.kind == audit.kind[unknown.subject]) & ~audit.holds([sender.client])[0]
        is_first = np.diff(audit.subject, prepend=-1) != 0
        peers = np.setdiff1d(federation.trained_rows[is_first & is_peer[audit.subject]], [own_row])
        peers = rng.permutation(peers)[: limit - 1]
    return np.array([own_row, *peers.tolist()]), others[~np.isin(others, peers)]
