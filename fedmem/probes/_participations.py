"""The audit examples that a client trains on in one round, and the rows that stand for them."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.probe import Context


def trained_rows(federation: Federation, run: int, client: int, round_number: int) -> dict[int, list[int]]:
    """The rows of the store that stand for each example that a client trains on in this round, sorted."""
    audit = federation.audit
    is_trained = audit.is_in[run] & audit.is_active(round_number)
    copies = np.flatnonzero((audit.owners == client) & is_trained[audit.subject])
    rows: dict[int, set[int]] = {}
    for copy in copies.tolist():
        rows.setdefault(int(audit.subject[copy]), set()).add(int(federation.trained_rows[copy]))
    return {subject: sorted(rows[subject]) for subject in sorted(rows)}


def draw_examples(
    context: Context, sender: Transition, rows_of: dict[int, list[int]], limit: int | None, purpose: str
) -> list[int]:
    """The examples with a row in one of the client's batches, ascending; at most `limit`, drawn from a named stream."""
    used = context.used_rows(sender.run, sender.client, sender.round)
    subjects = [subject for subject, rows in rows_of.items() if np.isin(rows, used).any()]
    if limit is not None and len(subjects) > limit:
        rng = context.stream(purpose, run=sender.run, round_number=sender.round, client=sender.client)
        subjects = sorted(rng.permutation(subjects)[:limit].tolist())
    return subjects
