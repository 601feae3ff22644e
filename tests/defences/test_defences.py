"""Clipping, pruning, quantising, noise: each against its closed form; what is sent against what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.training.defence_pipeline import DefencePipeline
from fedmem.training.executor import Settings
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork, Stacked
from tests.defences.defences_helpers import norm
from tests.engines.seams_helpers import Everything, watched
from tests.tiny import tiny


@pytest.mark.parametrize("server", ["messages", "rule"])
@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_server_gets_the_clipped_update_and_client_keeps_its_own(server: str, executor: type) -> None:
    scenario = tiny(defences=[{"kind": "clip", "norm": 0.05}, {"kind": "quantise", "bits": 3}], rounds=2)
    federation, seen = build(scenario), Everything()
    from fedmem.engines.lockstep import Lockstep

    work = LocalWork(federation, scenario.client, scenario.seed)
    out = DefencePipeline(scenario.defences, scenario.seed)
    trainer = executor(federation.model, scenario.client, federation.store, Settings(defences=out))
    finished = Lockstep(scenario, federation, trainer, work, seen).train(range(4), server)
    undefended = watched(tiny(rounds=2), server, executor)[1].local
    for place, transition in seen.local.items():
        moved = {n: transition.kept[n] - v for n, v in transition.before.items()}
        assert norm(moved) > 0.06
        for name, value in transition.before.items():
            assert len(np.unique((transition.sent[name] - value).mul(1e4).round().numpy())) <= 7
            if place[1] == 1:
                assert torch.equal(transition.kept[name], undefended[place].kept[name])
    # the average is of what was sent
    start = federation.initial
    assert all(norm({n: v - start[n] for n, v in params.items()}) < 0.11 for params in finished.params)


NOISY = {"defences": [{"kind": "clip", "norm": 0.1}, {"kind": "noise", "norm": 0.1, "multiplier": 30.0}]}
CENTRAL = {"strategy": {"kind": "dp_fedavg", "noise_multiplier": 1.0, "clip": 0.1, "expected_cohort_size": 5}}


@pytest.mark.parametrize("changes", [NOISY, CENTRAL], ids=["clients", "server"])
@pytest.mark.parametrize(("server", "executor"), [("rule", "stacked"), ("messages", "one_by_one")])
def test_guaranteed_run_continues_where_all_clients_diverge(changes: Any, server: str, executor: str) -> None:
    """Failing would tell who diverged, and no noise covers that."""
    scenario = tiny(
        client={"kind": "sgd", "lr": 1e30, "epochs": 1, "batch_size": 8},
        rounds=2,
        runs=2,
        sampler={"kind": "everyone"},
        privacy={"delta": 0.01},
        speed={"server": server, "executor": executor, "workers": 1},
        **changes,
    )
    found = simulate(scenario, build(scenario))
    assert not any(part.failed for part in found.bank.participation)
    for params in found.params:
        assert all(torch.isfinite(value).all() for value in params.values())
