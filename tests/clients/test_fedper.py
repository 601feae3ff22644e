"""Tests of `fedmem/clients/fedper.py`."""

from __future__ import annotations

from typing import Any

import torch

from fedmem.scenario import catalogue


def test_fedper_participation_equals_hand_calculation() -> None:
    """The gradient is taken where both layers are, and the head of the aggregate is not looked at."""
    client = catalogue_client("fedper", lr=1.0)
    before = {"body.weight": torch.tensor([1.0]), "head.weight": torch.tensor([100.0])}
    state = client.init(before, {}, {"head.weight": torch.tensor([3.0])})
    state = client.step(state, lambda p: {"body.weight": p["head.weight"], "head.weight": p["body.weight"]})
    outcome = client.final(state, before)
    assert {n: float(v) for n, v in outcome.kept.items()} == {"body.weight": -2.0, "head.weight": 2.0}
    assert {n: float(v) for n, v in outcome.sent.items()} == {"body.weight": -2.0, "head.weight": 100.0}
    assert {n: float(v) for n, v in outcome.memory.items()} == {"head.weight": 2.0}


def catalogue_client(kind: str, **fields: Any) -> Any:
    return catalogue.build("client", {"kind": kind, **fields})
