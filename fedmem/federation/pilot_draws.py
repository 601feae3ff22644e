"""The data of a pilot: one run more than are analysed, with coins, replacement rows and weights of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.federation import Federation
from fedmem.seeding import stream

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def with_pilot(scenario: Scenario, audit: AuditSet, certain: BoolArray) -> AuditSet:
    """The coins of one run more, fair and independent of all others; every client is in it, to be looked at.

    Examples that are `certain` (m,) have no coin, and are in.
    """
    coins = stream(scenario.seed, "pilot coins").random((1, len(audit))) < 0.5
    coins = (coins if audit.coin_group is None else coins[:, audit.coin_group]) | certain
    client_in = audit.client_in
    return replace(
        audit,
        is_in=np.concatenate([audit.is_in, coins]),
        client_in=None if client_in is None else np.concatenate([client_in, np.ones_like(client_in[:1])]),
        coin_row=None if audit.coin_row is None else np.append(audit.coin_row, audit.runs),
    )


def without_pilot(whole: Federation) -> Federation:
    """The federation without its last run, which is its pilot; every other array is shared."""
    audit, runs = whole.audit, whole.audit.runs - 1
    client_in = None if audit.client_in is None else audit.client_in[:runs]
    return replace(
        whole,
        audit=replace(
            audit,
            is_in=audit.is_in[:runs],
            client_in=client_in,
            coin_row=None if audit.coin_row is None else audit.coin_row[:runs],
        ),
        replacement=whole.replacement[:runs],
        initials=whole.initials[:runs],
        pilot=whole,
    )
