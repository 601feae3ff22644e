"""The objective that a model was trained on: rows, their weights, and those of audit examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.client import ScheduledClient
from fedmem.contracts.signal import SignalContext


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Σ_i w_i ℓ_i + μ/2 ‖θ‖², of one client or of all.

    Attributes:
        rows: (n,) rows of the store.
        weights: (n,) w_i, with the sum 1; empty where there are no rows.
        of_examples: (m,) the weight that each audit example has where it is in, all of its copies together.
        decay: μ.
    """

    rows: IntArray
    weights: FloatArray
    of_examples: FloatArray
    decay: float


def objective_of(context: SignalContext, position: int) -> Objective:
    """The objective of the client of a local model, or that of all clients of the run, Σ_k p_k L_k.

    L_k is the mean over the rows of client k. Its weight p_k is its share of all rows. Under uniform weighting it is
    1/K, with K the clients that have rows. Rows are those of the round; at round 0 they are those of round 1.
    """
    transition, federation = context.transitions[position], context.federation
    round_number = max(1, transition.round)
    is_local = transition.level == "local"
    absent = set(federation.absent_clients)
    clients = [transition.client] if is_local else [k for k in range(federation.num_clients) if k not in absent]
    parts = [federation.rows(transition.run, client, round_number) for client in clients]
    sizes = np.array([len(part) for part in parts], dtype=np.float64)
    shares = client_shares(sizes, context.weighting)
    per_row = np.divide(shares, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    copies = copies_at(federation.audit, np.array(clients))
    decay = 0.0
    if isinstance(context.client, ScheduledClient):
        decay = context.client.schedule(round_number, 1).weight_decay
    return Objective(
        rows=np.concatenate([np.empty(0, dtype=np.int64), *parts]),
        weights=np.repeat(per_row, sizes.astype(np.int64)),
        of_examples=per_row @ copies,
        decay=decay,
    )


def values_of_owners(
    context: SignalContext, values: Callable[[int, Objective, IntArray], FloatArray], width: int
) -> FloatArray:
    """(T, m, width) what `values` gives for each model, its objective and the n examples that its client owns.

    It gives (n, width) of finite or undefined numbers. All other examples are NaN.
    """
    found = np.full((len(context.transitions), len(context.examples), width), np.nan)
    is_owner = context.is_owner()
    for position in range(len(context.transitions)):
        rows = np.flatnonzero(is_owner[position])
        objective = objective_of(context, position)
        if len(rows) and len(objective.rows):
            found[position, rows] = values(position, objective, rows)
    return found


def client_shares(sizes: FloatArray, weighting: str) -> FloatArray:
    """(K,) the weights of clients in their mean, from their numbers of rows; zeros where nobody has rows.

    >>> sizes = np.array([1.0, 3.0, 0.0])
    >>> client_shares(sizes, "size").tolist(), client_shares(sizes, "uniform").tolist()
    ([0.25, 0.75, 0.0], [0.5, 0.5, 0.0])
    """
    counted = sizes if weighting == "size" else (sizes > 0).astype(np.float64)
    return np.asarray(counted / max(counted.sum(), 1.0))


def copies_at(audit: AuditSet, clients: IntArray) -> FloatArray:
    """(K, m) how many copies of each audit example each of these clients trains on in an epoch, where it is in."""
    place = {client: i for i, client in enumerate(clients.tolist())}
    copies = np.zeros((len(clients), len(audit)))
    for owner, subject in zip(audit.owners.tolist(), audit.subject.tolist(), strict=True):
        if owner in place:
            copies[place[owner], subject] += 1
    return copies
