"""Tests of `fedmem/unlearners/_clients.py`: who changes a model, and who keeps it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fedmem.unlearners._clients import unlearn_at_clients


def test_only_runs_with_something_to_forget_are_changed() -> None:
    model: dict[str, Any] = {}
    runs = [
        SimpleNamespace(run=0, before=model, forgotten={}),
        SimpleNamespace(run=1, before=model, forgotten={2: np.array([5]), 4: np.array([6])}),
    ]
    context: Any = SimpleNamespace(runs=runs, average=lambda run, sent: (run, sent))
    found: Any = unlearn_at_clients(context, lambda _, run, client, rows: {"sum": run.run + client + rows.sum()})
    kept, changed = found
    assert kept is model
    assert changed == (1, {2: {"sum": 8}, 4: {"sum": 11}})
