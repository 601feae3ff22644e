"""What tests of mechanisms share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fedmem.contracts.sampler import Sampler
from fedmem.privacy import mechanisms, spending
from fedmem.privacy.accounting import Releases
from tests.tiny import tiny

POISSON = {"kind": "poisson", "rate": 0.5}


NOISY = {"kind": "dp_fedavg", "expected_cohort_size": 2.5}


def private(**changes: Any) -> Any:
    return tiny(**{"runs": 2, "sampler": POISSON, "strategy": NOISY, "injections": [], **changes})


def only(scenario: Any) -> Releases:
    (one,) = spending.of_scenario(scenario)
    return one.releases


def mechanism_of(
    strategy: Any, sampler: Sampler, adjacency: str | None = None, clients: int = 10, rounds: int = 1
) -> Releases:
    """What a strategy guarantees, without a scenario around it."""
    chosen: Any = SimpleNamespace(delta=1e-5, adjacency=adjacency)
    (one,) = mechanisms.mechanisms(strategy, (), sampler, chosen, clients, rounds)
    return one.releases
