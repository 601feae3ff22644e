"""From stored evidence to the series of each place: the same models over all observed rounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.evidence import Bank, Evidence, SignalEvidence
from fedmem.contracts.measurement import NO_CLIENT, Level
from fedmem.contracts.series import Series


def series_of(bank: Bank) -> Mapping[tuple[Level, str], Series]:
    """The series of each place that the bank has evidence of after round 0.

    An example is read only in the runs in which its owner exists. A local model is read only at rounds at which it is
    there in all runs that have its client. In and out runs are then compared at the same rounds.
    """
    audit = bank.audit
    blocks: dict[Level, dict[int, list[Evidence]]] = {}
    for part in bank.evidence:
        if part.set == "audit" and part.round > 0:
            blocks.setdefault(part.level, {}).setdefault(part.round, []).append(part)
    signals: dict[Level, dict[str, dict[int, list[SignalEvidence]]]] = {}
    for block in bank.signals:
        if block.round > 0 and block.set == "audit":
            of_level = signals.setdefault(block.level, {})
            of_level.setdefault(block.name, {}).setdefault(block.round, []).append(block)
    wholes, locals_ = blocks.get("global", {}), blocks.get("local", {}) if bank.roster != "per_run" else {}
    rounds = np.array(sorted({*wholes, *locals_}), dtype=np.int64)
    if not len(rounds):
        return {}
    hidden = ~audit.owner_in
    participated = took_part = None
    places: dict[tuple[Level, str], tuple[IntArray, BoolArray]] = {}
    owner = audit.owner.astype(np.int64)[None]
    if wholes:
        client = np.unique(np.concatenate([part.client for parts in wholes.values() for part in parts]))
        is_shown = np.isin(owner, client) | (client == NO_CLIENT).all()
        places["global", ""] = owner, np.broadcast_to(is_shown, (len(rounds), *owner.shape))
    if locals_:
        clients = np.unique(np.concatenate([part.client for parts in locals_.values() for part in parts]))
        complete, partial = _complete(bank, locals_, rounds, clients)
        of_owner = np.searchsorted(clients, owner[0]).clip(max=len(clients) - 1)
        participated, took_part = (each[:, of_owner] & (clients[of_owner] == owner[0]) for each in (complete, partial))
        places["local", "owner"] = owner, participated[:, None]
        others = np.broadcast_to(clients.astype(np.int64)[:, None], (len(clients), len(audit)))
        places["local", "others"] = others, complete[:, :, None] & ~audit.holds(clients) & (owner >= 0)
    return {
        place: Series(
            rounds=rounds,
            client=client,
            observed=observed,
            participated=participated,
            is_hidden=hidden,
            kept=wholes if place[0] == "global" else locals_,
            aggregates=wholes,
            signals=signals.get(place[0], {}),
            took_part=took_part,
        )
        for place, (client, observed) in places.items()
    }


def _complete(
    bank: Bank, blocks: Mapping[int, list[Evidence]], rounds: IntArray, clients: IntArray
) -> tuple[BoolArray, BoolArray]:
    """(S, C) whether each client was observed at each round, in every run that has it, and in some run."""
    exists = np.ones((bank.audit.runs, len(clients)), dtype=bool)
    if bank.audit.client_in is not None:
        exists = bank.audit.client_in[:, clients]
    complete, partial = np.zeros((2, len(rounds), len(clients)), dtype=bool)
    for position, round_number in enumerate(rounds.tolist()):
        present = np.zeros_like(exists)
        for part in blocks.get(round_number, ()):
            present[part.run, np.searchsorted(clients, part.client)] = True
        partial[position] = present.any(0)
        complete[position] = (present | ~exists).all(0) & partial[position]
    return complete, partial
