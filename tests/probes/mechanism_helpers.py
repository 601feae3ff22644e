"""What tests of mechanism share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedmem.contracts.measurement import Measurement
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.privacy import mechanism_alarms
from fedmem.privacy.mechanism_tests import Release
from tests.broken_mechanisms import broken
from tests.tiny import tiny

PROBE: list[dict[str, Any]] = [{"kind": "mechanism"}]


EVERYONE = {"kind": "everyone"}


SERVERS: dict[str, dict[str, Any]] = {
    "dp_fedavg": {"kind": "dp_fedavg", "clip": 0.1, "expected_cohort_size": 5},
    "dp_adaptive": {"kind": "dp_adaptive", "initial_clip": 0.1, "expected_cohort_size": 5},
    "dp_ftrl": {"kind": "dp_ftrl", "clip": 0.1, "expected_cohort_size": 5},
}


PRIVATE: dict[str, Any] = {
    "kind": "dp_sgd",
    "lr": 0.5,
    "steps": 3,
    "batch_size": 20,
    "clip": 0.2,
    "noise_multiplier": 1.0,
}


def made(**changes: Any) -> Any:
    """A tiny federation whose clients differ, so that their updates do."""
    settings: dict[str, Any] = {
        "runs": 2,
        "dataset": {"kind": "synthetic", "rows": 300, "test": 60},
        "sampler": EVERYONE,
        "partition": {"kind": "dirichlet", "alpha": 0.3},
        "observe": {"every": 1},
        "probes": PROBE,
        "speed": {"executor": "one_by_one", "workers": 1},
    }
    return tiny(**{**settings, **changes})


def outcome(scenario: Any, name: str) -> tuple[list[str], list[Measurement]]:
    """The alarms of a scenario in which the mechanism is broken, and its rows."""
    with broken(name):
        rows = simulate(scenario, build(scenario)).measurements
    return mechanism_alarms.alarms(scenario, rows), list(rows)


def release(rng: np.random.Generator, **changes: Any) -> Release:
    """Six contributions of different lengths, some longer than the clip, with the noise of the guarantee."""
    contributions = rng.standard_normal((6, 500)) * np.array([0.01, 0.02, 0.1, 0.2, 0.5, 1.0])[:, None]
    made = Release(
        total=np.zeros(500), contributions=contributions, clip=1.0, scale=2.0, arrays={"w": 400, "b": 100}, **changes
    )
    return replace(made, total=made.clipped_sum + 2.0 * rng.standard_normal(500))
