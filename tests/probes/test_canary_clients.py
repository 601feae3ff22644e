"""Tests of `fedmem/probes/canary_clients.py`."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.evidence import Transition
from fedmem.privacy.canary_directions import CanaryDirections, flatten
from fedmem.probes import canary_clients as probe
from tests.privacy.canary_clients_helpers import SHAPES, estimates, rows_of


def transition(before: Any, after: Any, round_number: int) -> Transition:
    return Transition(
        run=0, round=round_number, level="global", client=-1, before=before, sent=after, kept=after, num_examples=1
    )


def test_cosines_are_those_of_the_movement() -> None:
    canaries = CanaryDirections(seed=0, count=4)
    directions = np.array(list(canaries.directions(0, SHAPES)))
    fresh = np.array(list(canaries.directions(0, SHAPES, fresh=True)))
    rng = np.random.default_rng(0)
    start, middle, end = (
        {name: torch.from_numpy(rng.normal(size=shape)) for name, shape in SHAPES.items()} for _ in range(3)
    )
    context: Any = SimpleNamespace(
        canaries=canaries, observed_rounds=(0, 1, 2), federation=SimpleNamespace(initial_of=lambda run: start)
    )
    found = {
        str(r.labels.without("adjacency")): r.value
        for _, r in probe.CanaryClients().observe([transition(middle, end, 2)], context)
    }
    assert len(found) == 12
    for j in range(4):
        for what, before in (("final", start), ("step", middle)):
            moved = flatten(end) - flatten(before)
            cosine = directions[j] @ moved / np.linalg.norm(moved)
            assert found[f"canary={j}, shown={what}"] == pytest.approx(cosine)
        moved = flatten(end) - flatten(middle)
        assert found[f"fresh={j}, shown=step"] == pytest.approx(fresh[j] @ moved / np.linalg.norm(moved))
    # without every round there is no largest of all; nothing is told of the first model, nor where nothing moved
    context.observed_rounds = (0, 2)
    assert len(probe.CanaryClients().observe([transition(middle, end, 2)], context)) == 4
    context.observed_rounds = (0, 1, 2)
    assert len(probe.CanaryClients(every=2).observe([transition(middle, end, 2)], context)) == 4
    assert not probe.CanaryClients().observe([transition(start, start, 0)], context)
    assert all(math.isnan(r.value) for _, r in probe.CanaryClients().observe([transition(start, start, 1)], context))
    context.canaries = None
    assert not probe.CanaryClients().observe([transition(middle, end, 2)], context)


def test_missing_cosines_are_skipped_and_too_few_give_nan() -> None:
    cosines = np.random.default_rng(3).normal(0.1, 1 / 30, size=20)
    some = np.where(np.arange(20) < 5, np.nan, cosines)
    found = estimates(rows_of(some, "final canary", 1))
    assert found[1, "final", "epsilon_one_shot"].n == 15
    assert (
        found[1, "final", "epsilon_one_shot"].value
        == estimates(rows_of(cosines[5:], "final canary", 1))[1, "final", "epsilon_one_shot"].value
    )
    lost = np.full(20, np.nan)
    found = estimates(
        rows_of(lost, "final canary", 1) + rows_of(lost, "step canary", 1) + rows_of(lost, "step fresh", 1)
    )
    assert len(found) == 4
    assert all(math.isnan(one.value) and one.n == 0 for one in found.values())
    assert not probe.CanaryClients().summarise([], 0)
