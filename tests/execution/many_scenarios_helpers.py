"""What tests of many scenarios share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedmem.errors import RunError
from fedmem.execution.run import run
from fedmem.scenario.scenario import Scenario
from fedmem.strategies._rule import Arrays, Round, RuleStrategy
from tests.execution.sharding_helpers import written
from tests.tiny import tiny

SMALL: dict[str, Any] = {
    "rounds": 2,
    "injections": [{"kind": "random_pattern", "per_client": 1}, {"kind": "typical", "per_client": 1}],
    "probes": [{"kind": "utility"}],
    "estimators": [{"kind": "memorisation"}],
    "save": {"params": True},
}


def small(**changes: Any) -> Scenario:
    return tiny(**{**SMALL, **changes})


@dataclass(frozen=True, kw_only=True)
class Breaking:
    """A strategy that fails, or ends its process."""

    kill: bool = False

    def make(self, cohort_size: int) -> Any:
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        return {}

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        return {}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RunError("broken")


def runner_alone(out: Path) -> Callable[[Scenario], dict[str, bytes]]:
    """What a scenario writes that is run by itself; each is run once."""
    found = dict[str, dict[str, bytes]]()

    def of(scenario: Scenario) -> dict[str, bytes]:
        if scenario.id not in found:
            found[scenario.id] = written(run(scenario, out=out))
        return found[scenario.id]

    return of
