"""What tests of seams share."""

from __future__ import annotations

from typing import Any

import torch

from fedmem.contracts.evidence import TrainedBank, Transition
from fedmem.engines.lockstep import Lockstep
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork

TOYS = {"strategy": {"kind": "tests.toys:Counting"}, "client": {"kind": "tests.toys:Carrying"}}


class Everything:
    """A watcher that keeps all transitions."""

    def __init__(self) -> None:
        self.local: dict[tuple[int, int, int], Transition] = {}

    def observes_round(self, round_number: int) -> bool:
        return True

    def see(self, transitions: Any) -> None:
        self.local |= {(t.run, t.round, t.client): t for t in transitions if t.level == "local"}


def trained(scenario: Scenario, **how: Any) -> TrainedBank:
    return simulate(scenario, build(scenario), **how)


def watched(scenario: Scenario, server: str, executor: type = OneByOne) -> tuple[Any, Everything, LocalWork]:
    """Train all runs and keep every local transition."""
    federation, seen = build(scenario), Everything()
    work = LocalWork(federation, scenario.client, scenario.seed)
    engine = Lockstep(scenario, federation, executor(federation.model, scenario.client, federation.store), work, seen)
    return engine.train(range(scenario.runs), server), seen, work


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)
