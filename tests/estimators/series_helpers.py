"""Banks whose trajectories are written down model by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.contracts.measurement import Level
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from tests.banks import make_audit


def bank_of_margins(
    whole: FloatArray,
    is_in: BoolArray,
    *,
    local: Mapping[int, Mapping[int, FloatArray]] | None = None,
    rounds: Sequence[int] = (),
    owner: Sequence[int] | None = None,
    kind: Sequence[str] | None = None,
) -> Bank:
    """Margins of the aggregate (S, R, m) at rounds 1, 2, ... or others, and of clients (R, m) by round and client."""
    runs, m = is_in.shape
    audit = make_audit(kind or ["typical"] * m, owner or [0] * m, is_in)
    evidence = []

    def add(level: Level, round_number: int, client: int, margin: FloatArray) -> None:
        with np.errstate(invalid="ignore"):
            loss = np.logaddexp(0, -margin)
        evidence.append(
            Evidence(
                round=round_number,
                level=level,
                set="audit",
                run=np.arange(runs, dtype=np.int32),
                client=np.full(runs, client, np.int32),
                loss=loss,
                margin=margin,
                correct=margin > 0,
            )
        )

    for round_number, margin in zip(rounds or range(1, len(whole) + 1), whole, strict=True):
        add("global", round_number, -1, margin)
    for round_number, clients in (local or {}).items():
        for client, margin in clients.items():
            add("local", round_number, client, margin)
    return Bank(audit=audit, evidence=tuple(evidence), references=(), participation=(), seed=0)


def summaries(bank: Bank, deals: int = 50) -> dict[str, View]:
    """The summary by place; the aggregate is the empty place."""
    redeals = permute_coins(bank.audit, deals, np.random.default_rng(7))
    return {view.place: view for view in views(bank, redeals) if view.round is None}


def answers(*rows: str) -> FloatArray:
    """Margins (S, 1, m) of +1 and −1 from a row of 1 and 0 for each example; a point is NaN."""
    values = {"1": 1.0, "0": -1.0, ".": np.nan}
    return np.array([[[values[row[position]] for row in rows]] for position in range(len(rows[0]))])
