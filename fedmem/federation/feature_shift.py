"""Rows as the clients of a `FeatureShift` partition see them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import AuditSet, InjectionPlan, Role
from fedmem.contracts.data import Examples, FeatureShift
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.validation import shifted_of
from fedmem.guards.guarding import Guard


def as_seen_by(partition: FeatureShift, num_clients: int, rows: Examples, client: IntArray) -> Examples:
    """`rows` with the inputs that `client` (n,) sees; unchanged where that is -1."""
    inputs = rows.inputs.copy()
    show(partition, num_clients, inputs, client)
    return replace(rows, inputs=inputs)


def show(partition: FeatureShift, num_clients: int, inputs: NDArray[np.float32], client: IntArray) -> None:
    """Change `inputs` in place to what `client` (n,) sees; unchanged where that is -1."""
    positions = np.flatnonzero(client >= 0)
    by_client = Ragged.group_by_owner(positions, client[positions], num_clients)
    for index in np.flatnonzero(by_client.sizes).tolist():
        rows = inputs[by_client[index]]
        with Guard("partition", partition, "shift", client=index) as guard:
            inputs[by_client[index]] = shifted_of(guard, partition.shift(index, num_clients, rows), rows)


def carries_real_rows(role: Role, addition: InjectionPlan) -> bool:
    """Whether real rows carry the canaries of an injection: they could be shown neither shifted nor as they are.

    A shift would change the mark, which has to stay like its references. Without a shift, only the rows that stand for
    an out example would have the owner's shift.
    """
    return role == "canary" and addition.extra is not None and bool((addition.extra.ids >= 0).any())


def viewers(audit: AuditSet, extra_position: IntArray, num_extra: int) -> tuple[IntArray, IntArray]:
    """The client that sees each audit example (m,) and each extra row: its owner, or -1 where pixels stay as they are.

    Canaries keep theirs, since their references have no owner; so do rows that were made without any real row. Extra
    rows follow the example that they stand for, which would be wrong for real ones that carry a canary; see
    `carries_real_rows`.
    """
    real = (audit.examples.ids >= 0) & (audit.role != "canary")
    viewer = np.where(real, audit.owner, -1).astype(np.int64)
    extra = np.full(num_extra, -1, dtype=np.int64)
    extra[extra_position[extra_position >= 0]] = viewer[audit.subject[extra_position >= 0]]
    return viewer, extra


def replacement_pairs(
    audit: AuditSet, replacement: IntArray, start: int, num_clients: int
) -> tuple[IntArray, IntArray, IntArray]:
    """`replacement` with a row of its own for each pair of a reserve row and the client that sees it, from `start` on.

    Also the reserve row and the client of each pair, (pairs,). A row may stand in at different clients in different
    runs.
    """
    client = np.broadcast_to(audit.owners, replacement.shape)
    used = replacement >= 0
    pairs, place = np.unique((replacement[used] - start) * num_clients + client[used], return_inverse=True)
    changed = replacement.copy()
    changed[used] = start + place
    return changed, pairs // num_clients, pairs % num_clients
