"""Rows that a client trains on beside an audit example, among which its neighbours are."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.signal import SignalContext


def trained_support(context: SignalContext, transition: Transition, count: int, purpose: str) -> IntArray:
    """The rows of the store that the client of a model trains on in its run and round, or at most `count` of them.

    At the aggregate these are the rows of all clients. Rows are drawn from a stream named by `purpose`, the same for
    all rounds.
    """
    federation = context.federation
    run, round_number = transition.run, max(1, transition.round)
    is_local = transition.level == "local"
    clients = [transition.client] if is_local else range(federation.num_clients)
    rows = np.concatenate([federation.rows(run, client, round_number) for client in clients])
    return choose_rows(context, rows, count, purpose, run, transition.client if is_local else None)


def choose_rows(
    context: SignalContext, rows: IntArray, count: int, purpose: str, run: int | None = None, client: int | None = None
) -> IntArray:
    """The same rows, or `count` of them at random."""
    if len(rows) <= count:
        return rows
    rng = context.stream(purpose, run=run, client=client)
    return rows[np.sort(rng.permutation(len(rows))[:count])]


def own_rows(context: SignalContext, rows: IntArray) -> BoolArray:
    """(m, n) whether a row of the store is an audit example itself, or one of its copies."""
    federation = context.federation
    audit = federation.audit
    is_own: BoolArray = rows == federation.audit_start + np.arange(len(audit))[:, None]
    for example, copy in zip(audit.subject.tolist(), federation.trained_rows.tolist(), strict=True):
        is_own[example] |= rows == copy
    return is_own
