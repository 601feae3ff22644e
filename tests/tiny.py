"""A scenario small enough to be run many times in a test, on made data."""

from __future__ import annotations

import json
from typing import Any

from fedmem.contracts.sampler import sampler_declaration
from fedmem.scenario.catalogue import build, field_names
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "runs": 4,
    "rounds": 4,
    "clients": 5,
    "population": 20,
    "references": 50,
    "bootstrap": 50,
    "dataset": {"kind": "synthetic", "rows": 400, "test": 100},
    "partition": {"kind": "iid"},
    "model": {"kind": "mlp", "hidden": [8]},
    "injections": [
        {"kind": "random_pattern", "per_client": 2},
        {"kind": "mislabelled", "per_client": 2},
        {"kind": "typical", "per_client": 2},
    ],
    "sampler": {"kind": "uniform", "size": 3},
    "client": {"kind": "sgd", "lr": 0.2, "epochs": 1, "batch_size": 8},
    "strategy": {"kind": "fedavg"},
    "observe": {"every": 2, "levels": ["local", "global"]},
    "probes": [],
    "estimators": [],
}


def sampled(kind: str) -> dict[str, Any]:
    """What makes a tiny scenario draw its five clients by this sampler: two in a round, where it has a size."""
    sampler: dict[str, Any] = {"kind": kind}
    sampler |= {name: 2 for name in ("size", "expected") if name in (field_names("sampler", kind) or ())}
    sampler |= {"candidates": 4} if kind == "power_of_choice" else {}
    sampler |= {"clients": [1, 3]} if kind == "listed" else {}
    return {"sampler": sampler, "roster": "pilot" if sampler_declaration(build("sampler", sampler)).needs else "shared"}


def tiny(**changes: Any) -> Scenario:
    """The tiny scenario with these keys replaced."""
    # JSON is YAML
    return parse_scenario(json.dumps({**TINY, **changes}), name="tiny")
