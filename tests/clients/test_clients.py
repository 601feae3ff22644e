"""Clients that keep something back: sparsification with error feedback, layers of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from tests.clients.clients_helpers import CLIENTS, PERSONAL, personal
from tests.engines.seams_helpers import same

# --- top_k ------------------------------------------------------------------------------------------------------------


SELECTIVE = {"selective": {"share": 0.3}}


@pytest.mark.parametrize("kind", CLIENTS | SELECTIVE)
def test_executors_and_servers_agree(kind: str) -> None:
    client = {"kind": kind, "lr": 0.2, "momentum": 0.5, "batch_size": 8, **(CLIENTS | SELECTIVE)[kind]}
    found = {}
    executors = ("one_by_one", "stacked") if kind != "local_norm" else ("one_by_one",)
    for executor in executors:
        for server in ("rule", "messages"):
            settings: dict[str, Any] = {
                "client": client,
                "rounds": 3,
                "speed": {"executor": executor, "server": server, "workers": 1},
            }
            scenario = personal(kind if kind in PERSONAL else "fedper", **settings)
            found[executor, server] = simulate(scenario, build(scenario)).params
        assert same(found[executor, "rule"], found[executor, "messages"])
    for one, other in zip(found["one_by_one", "rule"], found[executors[-1], "rule"], strict=True):
        for name, value in one.items():
            # a rounding may decide which of two values is sent
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-3)


# --- layers that stay -------------------------------------------------------------------------------------------------


def test_utility_reads_each_owner_and_leakage_attacks_once() -> None:
    leakage = {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 2}, "levels": ["global"]}
    scenario = personal("fedper", probes=[{"kind": "utility"}, {"kind": "client_gap"}, leakage])
    federation = build(scenario)
    rows = simulate(scenario, federation).measurements
    owners = set(np.unique(federation.audit.owner).tolist())
    tests = [r for r in rows if r.reading.metric == "test_accuracy" and r.level == "global" and r.round == 4]
    assert {(r.run, r.client) for r in tests if r.run is not None} == {(run, k) for run in (0, 1) for k in owners}
    gaps = [r for r in rows if r.reading.metric == "client_loss_gap" and (r.level, r.round) == ("global", 4)]
    assert {(r.run, r.reading.subject) for r in gaps if r.run is not None} == {
        (run, f"client {k}") for run in (0, 1) for k in owners
    }
    attacked = [r for r in rows if r.reading.metric == "distance" and r.round == 4 and r.run is not None]
    assert sorted(r.run_number for r in attacked) == [0, 1]


def test_watching_a_personal_client_changes_nothing() -> None:
    scenario = personal("local_norm")
    one, other = (simulate(scenario, build(scenario), watch=watch).params for watch in (True, False))
    assert same(one, other)
