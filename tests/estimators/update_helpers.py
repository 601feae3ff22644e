"""Views whose test set has features of updates that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Models, SetEvidence, View
from fedmem.contracts.evidence import Evidence, SignalEvidence
from fedmem.contracts.measurement import Level
from fedmem.estimation.randomisation import permute_coins
from tests.banks import make_audit, make_view


def update_view(
    features: FloatArray,
    coins: BoolArray,
    *,
    facts: FloatArray | None = None,
    share: FloatArray | None = None,
    level: Level = "local",
    round_number: int | None = None,
    draws: int = 99,
    owner: Sequence[int] | None = None,
) -> View:
    """A view of updates (S, R, N, d) in rounds 1 to S; N is 1 at the aggregate.

    `coins` (R, m) are those of m examples of the kind `marked`, of client j each. `facts` (S, R, N, C + 1) have rows by
    class and all rows, by default equal; `share` (S, R, N) are those of the signal `row_share`.
    """
    rounds, runs, clients, size = features.shape
    facts = np.full((*features.shape[:3], 3), 10.0) if facts is None else facts
    values = {f"update_feature.projection.{i}": features[..., i] for i in range(size)}
    values |= {f"update_feature.label.{i}": facts[..., i] for i in range(facts.shape[3] - 1)}
    values |= {"update_feature.rows": facts[..., -1], "update_feature.weight": np.ones(features.shape[:3])}
    values |= {} if share is None else {"row_share.rows": share}
    client = np.tile(np.arange(clients), runs) if level == "local" else np.full(runs, -1)
    run = np.repeat(np.arange(runs), clients).astype(np.int32)
    signals = tuple(
        SignalEvidence(
            round=1 + place, level=level, name=name, run=run, client=client.astype(np.int32), set="test",
            values=table[place].reshape(-1, 1),
        )
        for name, table in values.items() for place in range(rounds)
    )  # fmt: skip
    nothing = np.zeros((0, 1))
    block = Evidence(
        round=1, level=level, set="test", run=run[:0], client=run[:0], loss=nothing, margin=nothing, correct=nothing,
    )  # fmt: skip
    models = Models(runs=runs, round=np.array([1]), client=np.array([0]), of=np.zeros((1, 1), dtype=np.int64))
    test = SetEvidence(models=models, blocks=(block,), targets=np.zeros(1, dtype=np.int64), signals=signals)
    m = coins.shape[1]
    audit = make_audit(["marked"] * m, list(range(m)) if owner is None else owner, coins)
    view = make_view(np.zeros((runs, m)), coins, level=level, place="owner" if level == "local" else "")
    redeals = permute_coins(audit, draws, np.random.default_rng(7))
    return replace(view, round=round_number, audit=audit, redeals=redeals, sets={"test": test})
