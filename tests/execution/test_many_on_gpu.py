"""Scenarios on a GPU are trained as one stack, in this process; that it is a GPU is made up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmem.contracts.evidence import TrainedBank
from fedmem.execution import many_scenarios
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario
from fedmem.training.client_work import TrainedWork, Work
from fedmem.training.stacked import Stacked
from tests.execution.many_scenarios_helpers import small

GPU = {"device": "cuda"}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors stay where they are."""
    monkeypatch.setattr("fedmem.execution.executors.device_of", lambda *_: "cpu")


def test_scenarios_on_a_gpu_are_one_bank_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    banks: list[tuple[int, ...]] = []
    pids: set[int] = set()

    def note(scenarios: dict[int, Scenario], *_: Any, **__: Any) -> None:
        banks.append(tuple(scenarios))
        pids.add(os.getpid())

    monkeypatch.setattr(many_scenarios, "train_bank", note)
    scenarios = [small(seed=seed, speed=GPU) for seed in range(3)]
    many_scenarios.run_all([*scenarios, small(seed=0, model={"kind": "mlp", "hidden": [4]}, speed=GPU)], out=tmp_path)
    assert banks == [(0, 1, 2), (3,)]
    assert pids == {os.getpid()}


def test_clients_of_scenarios_on_a_gpu_are_one_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And each scenario ends with what it has alone."""
    results: dict[str, TrainedBank] = {}
    sizes: list[int] = []
    train_all = Stacked.train_all

    def compute(scenario: Scenario, federation: Any, *_: Any, executor: Any, **__: Any) -> None:
        results[scenario.id] = simulate(scenario, federation, executor=executor)

    def noted(self: Stacked, work: Work) -> TrainedWork:
        sizes.append(len(work))
        return train_all(self, work)

    monkeypatch.setattr(many_scenarios, "compute", compute)
    monkeypatch.setattr(Stacked, "train_all", noted)
    scenarios = {i: small(seed=i, speed=GPU) for i in range(2)}
    many_scenarios.train_bank(scenarios, [tmp_path] * 2, force=True, report=lambda _: None, out=tmp_path)
    together = list(sizes)
    for scenario in scenarios.values():
        alone = simulate(scenario, build(scenario))
        for params, theirs in zip(results[scenario.id].params, alone.params, strict=True):
            assert all(torch.equal(value, theirs[name]) for name, value in params.items())
    assert together == [4 * 3 * 2] * 2, "in each round, the clients of both"
