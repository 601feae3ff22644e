"""What tests of stored evidence share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmem.contracts.evidence import Evidence
from fedmem.modalities.scores import losses, losses_of_stored, round_margins

NAMES = ("run", "client", "loss", "margin", "correct")


def block(name: str = "test", models: int = 3, rows: Any = None, **changes: Any) -> Evidence:
    rng = np.random.default_rng(models)
    margin = rng.normal(0, 20, (models, 4))
    if models:
        margin[0] = [np.nan, np.inf, -np.inf, 1e300]
    values: dict[str, Any] = {"loss": losses(margin), "margin": margin, "correct": margin > 0}
    run = np.arange(models, dtype=np.int32)
    common: dict[str, Any] = {"round": 1, "level": "local", "set": name, "run": run, "client": run + 4, "rows": rows}
    return Evidence(**common | values | changes)


def rounded(**changes: Any) -> Evidence:
    margin = round_margins(block(**changes).margin)
    return block(**changes, margin=margin, loss=losses_of_stored(margin))


def assert_same(one: Evidence, two: Evidence) -> None:
    assert (one.round, one.level, one.set, one.shape, one.dtype) == (
        two.round,
        two.level,
        two.set,
        two.shape,
        two.dtype,
    )
    for name in NAMES:
        first, second = getattr(one, name), getattr(two, name)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    assert (one.rows is None) == (two.rows is None)
    assert one.rows is None or one.rows.tolist() == (two.rows if two.rows is None else two.rows.tolist())
